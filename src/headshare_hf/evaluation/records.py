"""Results of a set as JSON has them: every number with its protocol, its FAR rule, its counts and its switches."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..data import VerificationSet
from ..data.ijb import OFFICIAL_SIZES, IjbProtocol
from .ijb import IJB_FARS, IjbResult
from .pair_bootstrap import LEVEL, bootstrap_intervals
from .roc import FAR_RULES, Roc
from .run_options import VerificationOptions
from .thresholds import calibrate_thresholds
from .verification import VerificationResult, tar_key


PAIR_FARS = (1e-2, 1e-3, 1e-4)


def pairs_record(
    pairs: VerificationSet, result: VerificationResult, options: VerificationOptions, embedding_size: int
) -> dict[str, Any]:
    """
    A set of pairs.

    Args:
        pairs ([`VerificationSet`]): The set; it names people where the bootstrap is to draw these.
        result ([`VerificationResult`]): Its result.
        options ([`VerificationOptions`]): How it was made.
        embedding_size (`int`): How many numbers an embedding has.
    """
    intervals = _intervals(pairs, result, options) if options.bootstrap else {}
    per_fold = [float(value) for value in result.accuracy_per_fold]
    return {
        "protocol": "pairs",
        "num_images": len(pairs.images),
        "num_folds": len(per_fold),
        "embedding_size": embedding_size,
        "flip": options.flip,
        "accuracy": result.accuracy,
        "accuracy_std": result.accuracy_std,
        "accuracy_standard_error": result.accuracy_standard_error,
        "accuracy_per_fold": per_fold,
        "best_threshold": result.threshold,
        **_curve(result.roc, PAIR_FARS, {far: intervals.get(tar_key(far, "at_most")) for far in PAIR_FARS}),
        **{f"{name}_interval": intervals.get(name) for name in ("accuracy", "auc", "eer")},
        "bootstrap": _bootstrap(options, options.bootstrap_over),
        "thresholds": calibrate_thresholds(result.roc, pairs.name, bool(options.flip)),
        "remarks": list(result.remarks),
    }


def ijb_record(
    protocol: IjbProtocol,
    result: IjbResult,
    identification: Mapping[str, Mapping[str, float]] | None,
    options: VerificationOptions,
    embedding_size: int,
) -> dict[str, Any]:
    """
    IJB-B or IJB-C.

    Args:
        protocol ([`IjbProtocol`]): The protocol.
        result ([`IjbResult`]): Of its 1:1 part.
        identification (`Mapping`, *optional*): Of its 1:N part, what [`evaluate_identification`] returned.
        options ([`VerificationOptions`]): How it was made.
        embedding_size (`int`): How many numbers the embedding of a template has.
    """
    size = (protocol.num_images, protocol.num_templates, protocol.num_pairs)
    complete = size == OFFICIAL_SIZES[protocol.name]
    intervals = {far: result.intervals.get(tar_key(far, "at_most")) for far in IJB_FARS}
    return {
        "protocol": "templates 1:1",
        "num_images": protocol.num_images,
        "num_templates": protocol.num_templates,
        "complete": complete,
        "embedding_size": embedding_size,
        **options.switches(),
        **_curve(result.roc, IJB_FARS, intervals),
        "bootstrap": _bootstrap(options, "templates"),
        "identification": {name: dict(rates) for name, rates in identification.items()} if identification else None,
        "remarks": [] if complete else [_incomplete(protocol.name, size)],
    }


def _curve(roc: Roc, fars: Sequence[float], intervals: Mapping[float, Sequence[float] | None]) -> dict[str, Any]:
    return {
        "num_pairs": roc.num_genuine + roc.num_impostor,
        "num_genuine": roc.num_genuine,
        "num_impostor": roc.num_impostor,
        "auc": roc.auc,
        "eer": roc.eer,
        "tar": [
            _point(roc, far, rule, intervals[far] if rule == "at_most" else None) for far in fars for rule in FAR_RULES
        ],
    }


def _point(roc: Roc, far: float, rule: str, interval: Sequence[float] | None) -> dict[str, Any]:
    """TAR and threshold at a FAR; none where there are too few impostor pairs for it, or none is accepted."""
    tar, threshold = None, math.inf
    if roc.is_measurable(far):
        tar, threshold = roc.tar_at_far(far, rule), roc.threshold_at_far(far, rule)
    return {
        "far": far,
        "rule": rule,
        "tar": tar,
        "threshold": threshold if math.isfinite(threshold) else None,
        "interval": None if interval is None or tar is None else [float(end) for end in interval],
    }


def _bootstrap(options: VerificationOptions, over: str) -> dict[str, Any] | None:
    if not options.bootstrap:
        return None
    return {"num_samples": options.bootstrap, "over": over, "seed": options.seed, "level": LEVEL}


def _intervals(
    pairs: VerificationSet, result: VerificationResult, options: VerificationOptions
) -> dict[str, list[float]]:
    sides: dict[str, list[str]] = {}
    if options.bootstrap_over == "people":
        names = list(pairs.names or ())
        sides = {
            "names_a": [names[index] for index in pairs.index_a],
            "names_b": [names[index] for index in pairs.index_b],
        }
    found = bootstrap_intervals(
        result, num_samples=options.bootstrap, level=LEVEL, far_targets=PAIR_FARS, seed=options.seed, **sides
    )
    return {key: [interval.low, interval.high] for key, interval in found.items()}


def _incomplete(name: str, size: tuple[int, int, int]) -> str:
    found, official = (
        f"{images:,} images, {templates:,} templates, {pairs:,} pairs"
        for images, templates, pairs in (size, OFFICIAL_SIZES[name])
    )
    return f"not the full protocol: {found}; {name} has {official}"
