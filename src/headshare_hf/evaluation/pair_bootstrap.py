"""How sure the results of a verification set are: percentile intervals of the bootstrap, over pairs or over people."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .cross_validation import DISTANCE_GRID, correct_counts, grid_cells, held_out_choice
from .verification import VerificationResult, tar_key


# Replicates that are computed at once; of 6,000 pairs their sums take about 10 MB.
_CHUNK = 64
# Pairs of a group; the variance of a mean of n that are drawn out of n is (n - 1) / n of what it should be.
_FEWEST = 10
# Share of the replicates inside of an interval, wherever none is given.
LEVEL = 0.95


class Interval(NamedTuple):
    """
    A percentile interval.

    Attributes:
        low (`float`): Lower end, a fraction in [0, 1].
        high (`float`): Upper end.
    """

    low: float
    high: float


def bootstrap_intervals(
    result: VerificationResult,
    *,
    names_a: Sequence[str] | None = None,
    names_b: Sequence[str] | None = None,
    num_samples: int = 1000,
    level: float = LEVEL,
    far_targets: Sequence[float] = (1e-3, 1e-4),
    seed: int = 0,
) -> dict[str, Interval]:
    """
    Percentile intervals of the accuracy, cross-validated anew in each replicate, of area under the curve and equal error
    rate, and of the TAR by the rule `"at_most"` (B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).

    Without names, pairs are drawn with replacement within each fold and kind, of which the protocol fixes the numbers, or
    within each kind where a fold has fewer than ten of one: drawn out of so few, replicates would be too much alike.
    Pairs that share a person depend on each other, so that this interval is too narrow where people are in many pairs.
    With names, people are drawn: a pair of one person counts as often as that person was drawn, one of two people as
    often as the product of both.

    Args:
        result ([`VerificationResult`]): Of the set.
        names_a (`Sequence[str]`, *optional*): Person on the first image of every pair.
        names_b (`Sequence[str]`, *optional*): Person on the second image.
        num_samples (`int`, *optional*, defaults to 1000): Number of replicates.
        level (`float`, *optional*, defaults to 0.95): Share of the replicates inside, in (0, 1).
        far_targets (`Sequence[float]`, *optional*, defaults to `(1e-3, 1e-4)`):
            At which FAR; those that the set has too few impostor pairs for are left out.
        seed (`int`, *optional*, defaults to 0): Of the draws.

    Returns:
        `dict[str, Interval]`: By the names of [`VerificationResult.metrics`].

    Raises:
        ValueError: Names are given for one side only or do not fit, there are too few people, or a number is out of
            range.
    """
    if not 0 < level < 1 or num_samples < 1:
        raise ValueError(f"`level` {level} must lie between 0 and 1, and `num_samples` {num_samples} be positive")
    far_targets = [far for far in far_targets if result.roc.is_measurable(far)]
    keys = ["accuracy", "auc", "eer", *(tar_key(far, "at_most") for far in far_targets)]
    generator = np.random.default_rng(seed)
    if names_a is None and names_b is None:
        weights = _draw_pairs(result, num_samples, generator)
    else:
        weights = _draw_people(result, _people(result, names_a, names_b), num_samples, generator)
    values = np.concatenate([_replicate(result, chunk, far_targets) for chunk in weights], axis=1)
    ends = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return {key: Interval(float(low), float(high)) for key, low, high in zip(keys, *ends, strict=True)}


def _draw_pairs(result: VerificationResult, num_samples: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    groups = _groups(result)
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.repeat(sizes.cumsum() - sizes, sizes)
    num_pairs = len(groups)
    for size in _chunk_sizes(num_samples):
        drawn = order[starts + generator.integers(np.repeat(sizes, sizes), size=(size, num_pairs))]
        yield _count_rows(drawn, num_pairs)


def _groups(result: VerificationResult) -> np.ndarray:
    """For every pair the number of the group that it is drawn in."""
    both = np.stack([result.folds, result.is_same])
    groups = np.unique(both, axis=1, return_inverse=True)[1].ravel()
    return groups if np.bincount(groups).min() >= _FEWEST else result.is_same.astype(np.int64)


def _draw_people(
    result: VerificationResult, people: np.ndarray, num_samples: int, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    num_people = int(people.max()) + 1
    for size in _chunk_sizes(num_samples):
        drawn = _count_rows(generator.integers(num_people, size=(size, num_people)), num_people)
        weights = drawn[:, people[0]] * np.where(result.is_same, 1, drawn[:, people[1]])
        if not (weights[:, result.is_same].any(axis=1) & weights[:, ~result.is_same].any(axis=1)).all():
            raise ValueError(f"{num_people} people are too few: a replicate has only pairs of one kind; draw pairs")
        yield weights


def _people(result: VerificationResult, names_a: Sequence[str] | None, names_b: Sequence[str] | None) -> np.ndarray:
    num_pairs = len(result.is_same)
    if names_a is None or names_b is None or len(names_a) != num_pairs or len(names_b) != num_pairs:
        found = [None if names is None else len(names) for names in (names_a, names_b)]
        raise ValueError(f"`names_a` and `names_b` need one name for each of {num_pairs} pairs; there are {found}")
    numbers = np.unique(np.array([*names_a, *names_b]), return_inverse=True)[1]
    return numbers.reshape(2, num_pairs)


def _replicate(result: VerificationResult, weights: np.ndarray, far_targets: Sequence[float]) -> np.ndarray:
    """Accuracy, area, equal error rate and TAR of every replicate, `(3 + len(far_targets), num_replicates)`."""
    true_rate, false_rate = _curves(result, weights)
    rows = np.arange(len(weights))
    tars = [true_rate[rows, (false_rate <= far).sum(axis=1) - 1] for far in far_targets]
    return np.stack([_accuracies(result, weights), _areas(true_rate, false_rate), _eers(true_rate, false_rate), *tars])


def _accuracies(result: VerificationResult, weights: np.ndarray) -> np.ndarray:
    cells, num_folds = grid_cells(result.similarities, result.is_same, result.folds)
    shape = (len(weights), num_folds, 2, len(DISTANCE_GRID) + 1)
    accepted = _count_rows(np.broadcast_to(cells, weights.shape), int(np.prod(shape[1:])), weights)
    accepted = accepted.reshape(shape).cumsum(axis=-1)
    totals = accepted[..., -1]
    correct = correct_counts(accepted[..., :-1], totals)
    right = np.take_along_axis(correct, held_out_choice(correct)[..., None], axis=-1)[..., 0]
    # Of all pairs, as a fold may hold none of the people drawn; with equal folds it is the mean of the folds.
    return right.sum(axis=1) / totals.sum(axis=(1, 2))


def _curves(result: VerificationResult, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """TAR and FAR of every replicate from (0, 0) on, a column for each threshold from the highest."""
    order = np.argsort(-result.similarities, kind="stable")
    scores, same = result.similarities[order], result.is_same[order]
    # Equal scores are accepted together.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    sums = [np.where(kind, weights[:, order], 0).cumsum(axis=1)[:, last] for kind in (same, ~same)]
    true_rate, false_rate = (np.pad(counts / counts[:, -1:], ((0, 0), (1, 0))) for counts in sums)
    return true_rate, false_rate


def _areas(true_rate: np.ndarray, false_rate: np.ndarray) -> np.ndarray:
    return (np.diff(false_rate) * (true_rate[:, 1:] + true_rate[:, :-1])).sum(axis=1) / 2


def _eers(true_rate: np.ndarray, false_rate: np.ndarray) -> np.ndarray:
    """As [`Roc.eer`]: where the straight line between two points crosses FAR = 1 - TAR."""
    missed, rows = 1 - true_rate, np.arange(len(true_rate))
    end = (false_rate >= missed).argmax(axis=1)
    start, rise = false_rate[rows, end - 1], false_rate[rows, end] - false_rate[rows, end - 1]
    gap, fall = missed[rows, end - 1] - start, missed[rows, end - 1] - missed[rows, end]
    return start + rise * gap / (rise + fall)


def _chunk_sizes(num_samples: int) -> Iterator[int]:
    for start in range(0, num_samples, _CHUNK):
        yield min(_CHUNK, num_samples - start)


def _count_rows(numbers: np.ndarray, size: int, weights: np.ndarray | None = None) -> np.ndarray:
    """How often each number below `size` occurs in each row, `(num_rows, size)`."""
    rows = np.arange(len(numbers))[:, None] * size
    counts = np.bincount(
        (numbers + rows).ravel(), None if weights is None else weights.ravel(), minlength=len(numbers) * size
    )
    return counts.reshape(len(numbers), size).astype(np.int64)
