"""How far the confidence of a classifier is from its accuracy."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

import torch

from .representation import check_labels


# Of the sum of a row; a softmax in float32 over thousands of classes stays within.
_SUM_TOLERANCE = 1e-3


class Calibration(NamedTuple):
    """
    Confidence and accuracy in bins of equal width. All are fractions in [0, 1].

    Attributes:
        expected_calibration_error (`float`): Mean of |accuracy − confidence| over the bins, weighted by their images.
        edges (`tuple[float, ...]`): `bins + 1` ends of the bins; an image on an edge belongs to the bin below.
        counts (`tuple[int, ...]`): Images in every bin.
        confidence (`tuple[float | None, ...]`): Their mean confidence, `None` in an empty bin.
        accuracy (`tuple[float | None, ...]`): The share of them that is right, likewise.
    """

    expected_calibration_error: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]


def calibration(probabilities: Any, labels: Any, bins: int = 15) -> Calibration:
    """
    Bins images by their confidence, the probability of the class that is predicted (C. Guo et al., arXiv 1706.04599,
    equations 2 and 3).

    As in [`ClassificationCounts`], a tie counts against the image.

    Args:
        probabilities (`torch.Tensor` or `np.ndarray` of shape `(num_images, num_labels)`):
            Of every class, on any device: of logits, `logits.softmax(dim=1)`.
        labels (`torch.Tensor` or `np.ndarray` of shape `(num_images,)`): Class numbers.
        bins (`int`, *optional*, defaults to 15): Number of bins.

    Raises:
        ValueError: There is no image, the shapes do not fit, a label is no class number, a row is no distribution, or
            `bins` is not positive.
    """
    if bins < 1:
        raise ValueError(f"`bins` is {bins}; it must be at least 1")
    rows, labels = torch.as_tensor(probabilities).detach().cpu().double(), torch.as_tensor(labels).cpu()
    _check_distributions(rows)
    check_labels(labels, *rows.shape)
    correct = (rows >= rows.gather(1, labels.long()[:, None])).sum(dim=1) == 1
    confidence = rows.amax(dim=1)
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    return _binned(confidence, correct, torch.bucketize(confidence, edges[1:-1]), edges)


def pool_calibrations(calibrations: Sequence[Calibration]) -> Calibration:
    """
    Several networks in one diagram: the images of each bin together, and the mean of the calibration errors, since the
    errors of networks that are too sure and not sure enough would cancel in common bins.

    Args:
        calibrations (`Sequence[Calibration]`): What [`calibration`] gave for each, with the same bins.

    Raises:
        ValueError: There is none, or the bins differ.
    """
    if not calibrations:
        raise ValueError("`calibrations` is empty; give at least one")
    first = calibrations[0]
    if any(tuple(found.edges) != tuple(first.edges) for found in calibrations):
        raise ValueError("the calibrations have other bins; compute all of them with the same `bins`")
    counts = torch.tensor([found.counts for found in calibrations])
    sums, right = (
        (counts * torch.tensor([[value or 0.0 for value in found] for found in rates], dtype=torch.float64)).sum(dim=0)
        for rates in ([found.confidence for found in calibrations], [found.accuracy for found in calibrations])
    )
    total = counts.sum(dim=0)
    return Calibration(
        fmean(found.expected_calibration_error for found in calibrations),
        tuple(first.edges),
        tuple(total.tolist()),
        _means(sums, total),
        _means(right, total),
    )


def _binned(confidence: torch.Tensor, correct: torch.Tensor, places: torch.Tensor, edges: torch.Tensor) -> Calibration:
    num_bins = len(edges) - 1
    counts = torch.bincount(places, minlength=num_bins)
    sums, right = (torch.bincount(places, values.double(), num_bins) for values in (confidence, correct))
    return Calibration(
        ((right - sums).abs().sum() / len(places)).item(),
        tuple(edges.tolist()),
        tuple(counts.tolist()),
        _means(sums, counts),
        _means(right, counts),
    )


def _means(sums: torch.Tensor, counts: torch.Tensor) -> tuple[float | None, ...]:
    return tuple(total / count if count else None for total, count in zip(sums.tolist(), counts.tolist(), strict=True))


def _check_distributions(rows: torch.Tensor) -> None:
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"probabilities have shape {tuple(rows.shape)}; expected (num_images, num_labels)")
    # Written so that NaN is refused too.
    bad = (~((rows >= 0).all(dim=1) & ((rows.sum(dim=1) - 1).abs() < _SUM_TOLERANCE))).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"row {int(bad[0])} is no distribution over the classes: it has negative numbers or does not add up to 1; "
            "of logits, give `logits.float().softmax(dim=1)`"
        )
