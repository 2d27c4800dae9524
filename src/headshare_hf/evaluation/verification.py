"""Verification of pairs: ten-fold accuracy as papers report it, and TAR at a FAR, AUC and EER from the whole ROC curve."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.pair_lists import contiguous_folds, default_folds
from ..data.verification_set import VerificationSet
from .arrays import to_array
from .cross_validation import cross_validate
from .roc import FAR_RULES, Roc


# Rows of embeddings that are made float64 at a time, so that they stay in the cache of the processor.
_ROWS = 128


@dataclass(frozen=True, eq=False)
class VerificationResult:
    """
    Result of a verification set. Similarities are cosines in [-1, 1], all rates fractions in [0, 1].

    Attributes:
        accuracy (`float`): Mean over the folds.
        accuracy_std (`float`): Standard deviation over the folds (of the population), as insightface prints it.
        accuracy_standard_error (`float`): Standard error of the mean over the folds, as the LFW protocol asks for.
        accuracy_per_fold (`np.ndarray` of shape `(num_folds,)`): Accuracy in each fold.
        threshold (`float`): The cosine above which a pair is accepted at the best accuracy on all pairs.
        tar (`dict[str, float | None]`): By the keys of [`tar_key`]; `None` where there are too few impostor pairs.
        remarks (`tuple[str, ...]`): Why a number is missing, or other folds were taken.
        roc ([`Roc`]): The ROC curve.
        similarities (`np.ndarray` of shape `(num_pairs,)`): Cosine of every pair.
        is_same (`np.ndarray` of `bool` and shape `(num_pairs,)`): Whether the pair is one person.
        folds (`np.ndarray` of `int64` and shape `(num_pairs,)`): Fold of every pair.
    """

    accuracy: float
    accuracy_std: float
    accuracy_standard_error: float
    accuracy_per_fold: np.ndarray
    threshold: float
    tar: dict[str, float | None]
    remarks: tuple[str, ...]
    roc: Roc
    similarities: np.ndarray
    is_same: np.ndarray
    folds: np.ndarray

    def metrics(self) -> dict[str, float | None]:
        """`accuracy`, `accuracy_std`, `accuracy_standard_error`, `threshold`, `auc`, `eer`, and TAR as in `tar`."""
        return {
            "accuracy": self.accuracy,
            "accuracy_std": self.accuracy_std,
            "accuracy_standard_error": self.accuracy_standard_error,
            "threshold": self.threshold,
            "auc": self.roc.auc,
            "eer": self.roc.eer,
            **self.tar,
        }


def verify_pairs(
    embeddings_a: Any,
    embeddings_b: Any,
    is_same: Any,
    folds: Any | None = None,
    far_targets: Sequence[float] = (1e-3, 1e-4),
) -> VerificationResult:
    """
    Verification from embeddings of any length. For embeddings of an image and its mirror image see [`add_flipped`].

    Args:
        embeddings_a (`torch.Tensor` or `np.ndarray` of shape `(num_pairs, embedding_size)`): First images.
        embeddings_b (`torch.Tensor` or `np.ndarray` of shape `(num_pairs, embedding_size)`): Second images.
        is_same (`torch.Tensor` or `np.ndarray` of `bool` and shape `(num_pairs,)`): Whether both are one person.
        folds (`torch.Tensor` or `np.ndarray` of integers and shape `(num_pairs,)`, *optional*):
            Fold of every pair; defaults to [`default_folds`], which are ten.
        far_targets (`Sequence[float]`, *optional*, defaults to `(1e-3, 1e-4)`): At which FAR to read the TAR.

    Returns:
        [`VerificationResult`].

    Raises:
        TypeError, ValueError: As [`pair_similarities`] and [`verify_similarities`].

    Example:

    ```python
    >>> result = verify_pairs(embeddings[pairs.index_a], embeddings[pairs.index_b], pairs.is_same, pairs.folds)
    >>> print(f"{result.accuracy:.4f} +- {result.accuracy_standard_error:.4f}", result.tar["tar@far=1e-3/at_most"])
    ```
    """
    return verify_similarities(pair_similarities(embeddings_a, embeddings_b), is_same, folds, far_targets)


def verify_similarities(
    similarities: Any, is_same: Any, folds: Any | None = None, far_targets: Sequence[float] = (1e-3, 1e-4)
) -> VerificationResult:
    """
    As [`verify_pairs`], from the cosines of the pairs.

    Args:
        similarities (`torch.Tensor` or `np.ndarray` of shape `(num_pairs,)`): Cosines in [-1, 1].
        is_same (`torch.Tensor` or `np.ndarray` of `bool` and shape `(num_pairs,)`): Whether both are one person.
        folds (`torch.Tensor` or `np.ndarray` of integers and shape `(num_pairs,)`, *optional*): Fold of every pair.
        far_targets (`Sequence[float]`, *optional*, defaults to `(1e-3, 1e-4)`): At which FAR to read the TAR.

    Raises:
        TypeError: The similarities are not floating, or `is_same` is not `bool`.
        ValueError: The shapes do not fit, there are only pairs of one kind, a similarity is no cosine, or the folds are
            fewer than two.
    """
    cosines, same = to_array(similarities), to_array(is_same)
    roc = Roc.from_scores(cosines, same)
    cosines = cosines.astype(np.float64)
    parts = default_folds(same) if folds is None else to_array(folds)
    found = cross_validate(cosines, same, parts)
    tar, remarks = _tar_table(roc, far_targets)
    if folds is None and not np.array_equal(parts, contiguous_folds(len(same))):
        remarks.append("ten neighboring parts would have pairs of one kind only; folds were made within each kind")
    return VerificationResult(
        accuracy=float(found.accuracy.mean()),
        accuracy_std=float(found.accuracy.std()),
        accuracy_standard_error=float(found.accuracy.std(ddof=1) / np.sqrt(len(found.accuracy))),
        accuracy_per_fold=found.accuracy,
        threshold=1 - found.best_threshold / 2,
        tar=tar,
        remarks=tuple(remarks),
        roc=roc,
        similarities=cosines,
        is_same=same,
        folds=parts,
    )


def check_can_verify(pairs: VerificationSet) -> None:
    """
    Checks a set by the protocol itself, before anything is embedded for it.

    Raises:
        ValueError: It has pairs of one kind only, or folds that the protocol cannot use; names the set.
    """
    try:
        verify_similarities(pairs.is_same.astype(np.float64), pairs.is_same, pairs.folds, far_targets=())
    except ValueError as error:
        raise ValueError(f"the verification set {pairs.name} cannot be evaluated: {error}") from error


def pair_similarities(embeddings_a: Any, embeddings_b: Any) -> np.ndarray:
    """
    Cosine of every pair, in float64.

    Args:
        embeddings_a (`torch.Tensor` or `np.ndarray` of shape `(num_pairs, embedding_size)`): First images.
        embeddings_b (`torch.Tensor` or `np.ndarray` of shape `(num_pairs, embedding_size)`): Second images.

    Returns:
        `np.ndarray` of `float64` and shape `(num_pairs,)`: Cosines in [-1, 1].

    Raises:
        ValueError: The shapes differ, or an embedding is zero or not finite.
    """
    a, b = _rows(embeddings_a, "embeddings_a"), _rows(embeddings_b, "embeddings_b")
    if a.shape != b.shape:
        raise ValueError(f"embeddings of shape {a.shape} and {b.shape} are no pairs; the shapes must be equal")
    products = np.empty((3, len(a)))
    for start in range(0, len(a), _ROWS):
        part = slice(start, start + _ROWS)
        x, y = a[part].astype(np.float64, copy=False), b[part].astype(np.float64, copy=False)
        products[:, part] = [np.einsum("ij,ij->i", *sides) for sides in ((x, y), (x, x), (y, y))]
    lengths_a, lengths_b = np.sqrt(products[1:])
    _check_lengths(lengths_a, "embeddings_a")
    _check_lengths(lengths_b, "embeddings_b")
    return (products[0] / lengths_a / lengths_b).clip(-1, 1)


def add_flipped(embeddings: Any, embeddings_flipped: Any) -> np.ndarray:
    """
    One unit embedding from those of an image and of its mirror image: their sum, normalized, as in insightface.

    Args:
        embeddings (`torch.Tensor` or `np.ndarray` of shape `(num_images, embedding_size)`): Of the images.
        embeddings_flipped (`torch.Tensor` or `np.ndarray` of shape `(num_images, embedding_size)`): Mirrored.

    Returns:
        `np.ndarray` of `float64` and shape `(num_images, embedding_size)`.

    Raises:
        ValueError: The shapes differ, or a sum is zero or not finite.
    """
    plain, flipped = _rows(embeddings, "embeddings"), _rows(embeddings_flipped, "embeddings_flipped")
    if plain.shape != flipped.shape:
        raise ValueError(f"embeddings of shape {plain.shape} cannot be added to mirrored ones of {flipped.shape}")
    sums = np.add(plain, flipped, dtype=np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums))
    _check_lengths(lengths, "the sum of both")
    sums /= lengths[:, None]
    return sums


def one_view(embeddings: np.ndarray, flip: bool) -> np.ndarray:
    """
    What [`extract_embeddings`] returned, with one embedding an image: with `flip`, [`add_flipped`] of both halves.

    Args:
        embeddings (`np.ndarray` of shape `(num_images, embedding_size)`): Twice as wide with `flip`.
        flip (`bool`): Whether the right half is of the mirrored images.
    """
    width = embeddings.shape[1] // 2
    return add_flipped(embeddings[:, :width], embeddings[:, width:]) if flip else embeddings


def tar_key(far: float, rule: str) -> str:
    """The name of a TAR among the results: `tar@far=1e-3/at_most`."""
    mantissa, exponent = f"{far:e}".split("e")
    return f"tar@far={float(mantissa):g}e{int(exponent)}/{rule}"


def _tar_table(roc: Roc, far_targets: Sequence[float]) -> tuple[dict[str, float | None], list[str]]:
    table: dict[str, float | None] = {}
    remarks = []
    for far in far_targets:
        measurable = roc.is_measurable(far)
        for rule in FAR_RULES:
            table[tar_key(far, rule)] = roc.tar_at_far(far, rule) if measurable else None
        if not measurable:
            remarks.append(
                f"TAR at FAR {far:g} cannot be measured with {roc.num_impostor} impostor pairs: one false accept is "
                f"already a FAR of {1 / roc.num_impostor:.2g}"
            )
    return table, remarks


def _rows(embeddings: Any, name: str) -> np.ndarray:
    rows = to_array(embeddings)
    if rows.ndim != 2:
        raise ValueError(f"`{name}` have shape {rows.shape}; expected (num_pairs, embedding_size)")
    return rows


def _check_lengths(lengths: np.ndarray, name: str) -> None:
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        raise ValueError(
            f"row {bad[0]} of {name} has length {lengths[bad[0]]} ({len(bad)} of {len(lengths)} are zero or not finite); "
            "it has no direction to compare"
        )
