"""Ten-fold accuracy of pairs, from one count of pairs in the place of a pass over them for every threshold."""

from typing import NamedTuple

import numpy as np


# Squared distances of unit embeddings, at which everyone looks for the best threshold.
DISTANCE_GRID = np.arange(0, 4, 0.01)


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
    cells, num_folds = grid_cells(similarities, is_same, folds)
    size = (num_folds, 2, len(DISTANCE_GRID) + 1)
    accepted = np.bincount(cells, minlength=int(np.prod(size))).reshape(size).cumsum(axis=-1)
    totals, accepted = accepted[..., -1], accepted[..., :-1]
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


def grid_cells(similarities: np.ndarray, is_same: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, int]:
    """
    For every pair one number that tells its fold, its kind and the first distance of the grid that accepts it: the
    position in an array of shape `(num_folds, 2, 401)`.

    Returns:
        `tuple[np.ndarray, int]`: The numbers, `int64` of shape `(num_pairs,)`, and the number of folds.

    Raises:
        ValueError: As [`cross_validate`].
    """
    if folds.shape != is_same.shape:
        raise ValueError(f"`folds` have shape {folds.shape} for {len(is_same)} pairs; expected ({len(is_same)},)")
    outside = np.flatnonzero(np.abs(similarities) > 1 + 1e-6)
    if len(outside):
        raise ValueError(f"similarity {outside[0]} is {similarities[outside[0]]}; cosines lie between -1 and 1")
    names, numbers = np.unique(folds, return_inverse=True)
    if len(names) < 2:
        raise ValueError("all pairs are in one fold; the threshold for a fold comes from the others")
    # A rounding error must not make a distance negative, which even the threshold 0 would accept.
    first = np.searchsorted(DISTANCE_GRID, np.maximum(2 - 2 * similarities, 0), side="right")
    return (2 * numbers + is_same) * (len(DISTANCE_GRID) + 1) + first, len(names)


def correct_counts(accepted: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Correct decisions `(..., num_thresholds)` from accepted `(..., 2, num_thresholds)` and all pairs `(..., 2)`."""
    return accepted[..., 1, :] + totals[..., 0, None] - accepted[..., 0, :]


def held_out_choice(correct: np.ndarray) -> np.ndarray:
    """For each fold of `(..., num_folds, num_thresholds)` the first threshold with the most correct in the others."""
    return (correct.sum(axis=-2, keepdims=True) - correct).argmax(axis=-1)
