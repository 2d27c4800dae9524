"""What a model card says about verification: names of metrics, and words that fit what is on the images."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from huggingface_hub import EvalResult

from ..models.card_metrics import PAIR_METRICS, HubMetric, find_pair_metric
from .card_fields import CardHead, data_type
from .card_verification_fields import CardIntervals, CardPairs, CardVerification


# The Hub has no task of comparing two images; this one is that of the embeddings.
TASK = "image-feature-extraction"


class Subject(NamedTuple):
    """
    Words for what is on the images.

    Attributes:
        one (`str`): A single one of them.
        same (`str`): What a genuine pair shares.
        classes (`str`): What the classifier told apart while it was trained.
        task (`str`): Name of the task in the results.
        tags (`tuple[str, ...]`): Tags of the card.
    """

    one: str
    same: str
    classes: str
    task: str
    tags: tuple[str, ...]


SUBJECTS: dict[str, Subject] = {
    "faces": Subject(
        "face", "the same person", "identities", "Face Verification", ("face-recognition", "face-verification")
    ),
    "characters": Subject("character", "the same character", "characters", "Character Verification", ()),
}


def is_pair_metric(name: str) -> bool:
    """Whether a card has a name for this metric of a set of pairs."""
    return find_pair_metric(name) is not None


def pair_metric(name: str, pairs: CardPairs) -> HubMetric:
    """
    A metric of [`CardPairs`] as the Hub calls it.

    Raises:
        ValueError: There is no such metric.
    """
    found = find_pair_metric(name, pairs.num_folds)
    if found is None:
        raise ValueError(f"unknown metric {name!r} of pairs; a model card knows: {', '.join(PAIR_METRICS)}")
    return found


def pair_results(verification: CardVerification) -> list[EvalResult]:
    """The results as the Hub's metadata has them: each name tells set, pairs, FAR with its rule, and mirroring."""
    mirrored = "with" if verification.flip else "without"
    return [
        EvalResult(
            task_type=TASK,
            task_name=SUBJECTS[verification.subject].task,
            dataset_type=data_type(pairs.id),
            dataset_name=pairs.name,
            metric_type=pair_metric(name, pairs).type,
            metric_name=(
                f"{pair_metric(name, pairs).name}, {pairs.name}, {pairs.num_genuine + pairs.num_impostor:,} pairs, "
                f"{mirrored} mirrored images"
            ),
            metric_value=round(value, 6),
            metric_args=_interval_args(name, pairs.intervals),
        )
        for pairs in verification.sets
        for name, value in pairs.values.items()
    ]


def _interval_args(name: str, intervals: CardIntervals | None) -> dict[str, Any] | None:
    """The metadata have no other place for it."""
    if intervals is None or name not in intervals.ends:
        return None
    ends = [round(end, 6) for end in intervals.ends[name]]
    return {"interval": ends, "level": intervals.level, "replicates": intervals.num_samples, "over": intervals.over}


def interval_text(sets: Sequence[CardPairs]) -> str:
    """Which intervals the brackets of [`pair_rows`] hold; empty where there are none."""
    groups: dict[str, list[str]] = {}
    for pairs in sets:
        if pairs.intervals is not None:
            found = pairs.intervals
            kind = f"of {100 * found.level:g} per cent with {found.num_samples:,} replicates over {found.over}"
            groups.setdefault(kind, []).append(pairs.name)
    return ", ".join(f"{kind} ({', '.join(names)})" for kind, names in groups.items())


def pair_rows(verification: CardVerification) -> list[tuple[str, str, CardPairs]]:
    """The rows of the table that people read: name of the metric, value in per cent, and its set."""
    rows = []
    for pairs in verification.sets:
        for name, value in pairs.values.items():
            error = pairs.accuracy_standard_error if name == "accuracy" else None
            ends = pairs.intervals.ends.get(name) if pairs.intervals else None
            shown = f"{100 * value:.2f}" + ("" if error is None else f" ± {100 * error:.2f}")
            shown += "" if ends is None else f" [{100 * ends[0]:.2f}, {100 * ends[1]:.2f}]"
            rows.append((pair_metric(name, pairs).name, shown, pairs))
    return rows


def head_text(head: CardHead | None) -> str:
    """A classifier in words: `arcface, scale 64, margin 0.5`."""
    if head is None:
        return "linear"
    margin = f", margin {', '.join(f'{part:g}' for part in head.margin)}" if head.margin else ", no margin"
    unit = " radians" if head.type == "arcface" else ""
    return f"{head.type}, scale {head.scale:g}{margin}{unit}"


def check_subject(subject: str) -> None:
    """
    Raises:
        ValueError: A card has no words for this subject.
    """
    if subject not in SUBJECTS:
        raise ValueError(f"`verification.subject` is {subject!r}; allowed: {', '.join(SUBJECTS)}")


def check_verification(verification: CardVerification) -> None:
    """
    Checks the numbers of a card's section on verification; that nothing is missing has been checked before.

    Raises:
        ValueError: A field is out of range or contradicts another. It is named.
    """
    check_subject(verification.subject)
    if not verification.num_embedding_parameters > 0:
        raise ValueError(
            f"`verification.num_embedding_parameters` is {verification.num_embedding_parameters}; it must be positive"
        )
    if not 0 < verification.embedding_bytes <= verification.total_bytes:
        raise ValueError(
            f"`verification.embedding_bytes` is {verification.embedding_bytes} and `verification.total_bytes` "
            f"{verification.total_bytes}; the first is positive, and a part of the second"
        )
    for index, pairs in enumerate(verification.sets):
        _check_pairs(pairs, f"verification.sets[{index}]")


def _check_pairs(pairs: CardPairs, name: str) -> None:
    for count in ("num_genuine", "num_impostor"):
        if not getattr(pairs, count) > 0:
            raise ValueError(f"`{name}.{count}` is {getattr(pairs, count)}; it must be positive")
    if pairs.num_folds < 2:
        raise ValueError(f"`{name}.num_folds` is {pairs.num_folds}; there are at least two")
    for metric, value in pairs.values.items():
        pair_metric(metric, pairs)
        if not 0 <= value <= 1:
            raise ValueError(f"`{name}.values[{metric!r}]` is {value}; expected a fraction in [0, 1], not per cent")
    error = pairs.accuracy_standard_error
    if error is not None and not (math.isfinite(error) and 0 <= error <= 1):
        raise ValueError(f"`{name}.accuracy_standard_error` is {error}; expected a fraction in [0, 1]")
    if pairs.intervals is not None:
        _check_intervals(pairs.intervals, pairs, f"{name}.intervals")


def _check_intervals(intervals: CardIntervals, pairs: CardPairs, name: str) -> None:
    for metric, ends in intervals.ends.items():
        if metric not in pairs.values:
            raise ValueError(
                f"`{name}.ends` has {metric!r}, which is none of `values`: {', '.join(pairs.values)}; leave it out"
            )
        if len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= 1:
            raise ValueError(
                f"`{name}.ends[{metric!r}]` is {ends}; expected two fractions in [0, 1], the lower one first"
            )
    if not 0 < intervals.level < 1:
        raise ValueError(f"`{name}.level` is {intervals.level}; expected a fraction between 0 and 1, e.g. 0.95")
    if intervals.num_samples < 2:
        raise ValueError(f"`{name}.num_samples` is {intervals.num_samples}; there are at least two")
