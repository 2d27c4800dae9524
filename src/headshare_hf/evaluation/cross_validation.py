"""Ten-fold accuracy of pairs, from one count of pairs in the place of a pass over them for every threshold."""

from typing import NamedTuple

import numpy as np


# Squared distances of unit embeddings, at which everyone looks for the best threshold, and for that of a FAR.
DISTANCE_GRID = np.arange(0, 4, 0.01)
FAR_GRID = np.arange(0, 4, 0.001)


class CrossValidation(NamedTuple):
    """
    What [`cross_validate`] gives.

    Attributes:
        accuracy (`np.ndarray` of shape `(num_folds,)`): Accuracy in each fold, a fraction in [0, 1].
        threshold (`np.ndarray` of shape `(num_folds,)`): Squared distance below which pairs were accepted there.
        tar (`np.ndarray` of shape `(400,)`): True accept rate at every distance of the grid, mean of the folds.
        far (`np.ndarray` of shape `(400,)`): False accept rate likewise.
        best_threshold (`float`): The first squared distance of the grid with the highest accuracy on all pairs.
    """

    accuracy: np.ndarray
    threshold: np.ndarray
    tar: np.ndarray
    far: np.ndarray
    best_threshold: float


class HeldOutRates(NamedTuple):
    """
    What [`held_out_rates`] gives.

    Attributes:
        tar (`np.ndarray` of shape `(num_folds,)`): True accept rate in each fold, a fraction in [0, 1].
        far (`np.ndarray` of shape `(num_folds,)`): False accept rate likewise.
        threshold (`np.ndarray` of shape `(num_folds,)`): Squared distance below which pairs were accepted there.
    """

    tar: np.ndarray
    far: np.ndarray
    threshold: np.ndarray


def cross_validate(similarities: np.ndarray, is_same: np.ndarray, folds: np.ndarray) -> CrossValidation:
    """
    Accuracy of each fold at the threshold that is best on the others: of [`DISTANCE_GRID`] the first of highest accuracy,
    with pairs accepted whose squared distance is below it (G. B. Huang et al., "Labeled Faces in the Wild", 2007, View 2;
    the grid is that of facenet and insightface).

    Args:
        similarities (`np.ndarray` of `float64` and shape `(num_pairs,)`): Cosines; squared distance is 2 - 2 cosine.
        is_same (`np.ndarray` of `bool` and shape `(num_pairs,)`): Whether the pair is one person.
        folds (`np.ndarray` of integers and shape `(num_pairs,)`): Fold of every pair.

    Raises:
        ValueError: A similarity is no cosine, the folds do not fit the pairs, or there is only one.
    """
    accepted, totals = _grid_counts(similarities, is_same, folds, DISTANCE_GRID)
    correct = correct_counts(accepted, totals)
    chosen = held_out_choice(correct)
    rates = accepted / np.maximum(totals, 1)[..., None]
    return CrossValidation(
        accuracy=np.take_along_axis(correct, chosen[:, None], axis=1)[:, 0] / totals.sum(axis=1),
        threshold=DISTANCE_GRID[chosen],
        tar=rates[:, 1].mean(axis=0),
        far=rates[:, 0].mean(axis=0),
        best_threshold=float(DISTANCE_GRID[correct.sum(axis=0).argmax()]),
    )


def held_out_rates(
    similarities: np.ndarray, is_same: np.ndarray, folds: np.ndarray, far: float = 1e-3
) -> HeldOutRates:
    """
    TAR and FAR of each fold at the threshold that has a FAR on the others, straight between two distances of
    [`FAR_GRID`]; none is accepted where no distance reaches it. The mean TAR is the validation rate (VAL) that facenet and
    insightface print, with the mean FAR. [`Roc`] reads TAR at a FAR off all pairs instead.

    Args:
        similarities (`np.ndarray` of `float64` and shape `(num_pairs,)`): Cosines; squared distance is 2 - 2 cosine.
        is_same (`np.ndarray` of `bool` and shape `(num_pairs,)`): Whether the pair is one person.
        folds (`np.ndarray` of integers and shape `(num_pairs,)`): Fold of every pair.
        far (`float`, *optional*, defaults to 1e-3): A FAR in (0, 1].

    Raises:
        ValueError: As [`cross_validate`], a fold lacks pairs of one kind, or the FAR is out of range.
    """
    if not 0 < far <= 1:
        raise ValueError(f"`far` is {far}; it must be a fraction in (0, 1]")
    accepted, totals = _grid_counts(similarities, is_same, folds, FAR_GRID)
    if not totals.all():
        raise ValueError("a fold has pairs of one kind only, and so no TAR or no FAR; use `default_folds`")
    false, impostors = accepted[:, 0], totals[:, 0]
    others = (false.sum(axis=0) - false) / (impostors.sum() - impostors)[:, None]
    threshold = np.array([np.interp(far, rates, FAR_GRID) if rates[-1] >= far else 0.0 for rates in others])
    numbers = np.unique(folds, return_inverse=True)[1]
    kinds = 2 * numbers + is_same
    below = kinds[_distances(similarities) < threshold[numbers]]
    rates = np.bincount(below, minlength=totals.size).reshape(totals.shape) / totals
    return HeldOutRates(tar=rates[:, 1], far=rates[:, 0], threshold=threshold)


def grid_cells(
    similarities: np.ndarray, is_same: np.ndarray, folds: np.ndarray, grid: np.ndarray = DISTANCE_GRID
) -> tuple[np.ndarray, int]:
    """
    For every pair one number that tells its fold, its kind and the first distance of the grid that accepts it: the
    position in an array of shape `(num_folds, 2, len(grid) + 1)`.

    Returns:
        `tuple[np.ndarray, int]`: The numbers, `int64` of shape `(num_pairs,)`, and the number of folds.

    Raises:
        ValueError: As [`cross_validate`].
    """
    if folds.shape != is_same.shape:
        raise ValueError(f"`folds` have shape {folds.shape} for {len(is_same)} pairs; expected ({len(is_same)},)")
    outside = np.flatnonzero(np.abs(similarities) > 1 + 1e-6)
    if len(outside):
        raise ValueError(
            f"similarity {outside[0]} is {similarities[outside[0]]}; cosines lie between -1 and 1, also rounded ones if they are "
            "computed in float32 or better; compute them so, or give embeddings to `verify_pairs`"
        )
    names, numbers = np.unique(folds, return_inverse=True)
    if len(names) < 2:
        raise ValueError("all pairs are in one fold; the threshold for a fold comes from the others")
    first = np.searchsorted(grid, _distances(similarities), side="right")
    return (2 * numbers + is_same) * (len(grid) + 1) + first, len(names)


def correct_counts(accepted: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Correct decisions `(..., num_thresholds)` from accepted `(..., 2, num_thresholds)` and all pairs `(..., 2)`."""
    return accepted[..., 1, :] + totals[..., 0, None] - accepted[..., 0, :]


def held_out_choice(correct: np.ndarray) -> np.ndarray:
    """For each fold of `(..., num_folds, num_thresholds)` the first threshold with the most correct in the others."""
    return (correct.sum(axis=-2, keepdims=True) - correct).argmax(axis=-1)


def _grid_counts(
    similarities: np.ndarray, is_same: np.ndarray, folds: np.ndarray, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of each fold and kind: those below each distance, `(num_folds, 2, len(grid))`, and all, `(num_folds, 2)`."""
    cells, num_folds = grid_cells(similarities, is_same, folds, grid)
    size = (num_folds, 2, len(grid) + 1)
    accepted = np.bincount(cells, minlength=int(np.prod(size))).reshape(size).cumsum(axis=-1)
    return accepted[..., :-1], accepted[..., -1]


def _distances(similarities: np.ndarray) -> np.ndarray:
    # A rounding error must not make a distance negative, which even the threshold 0 would accept.
    return np.maximum(2 - 2 * similarities, 0)
