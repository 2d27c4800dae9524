"""Measures of embeddings: how alike those of two networks are, what directions they use, where their classes lie."""

from typing import Any

import torch
from torch.nn import functional as F


# Share of the whole length below which what is left after centering is rounding.
_ROUNDING = 1e-12


class CollapsedEmbeddingError(ValueError):
    """A network gives every image the same embedding, so that there are no directions to measure."""


def linear_cka(first: Any, second: Any, debiased: bool = False) -> float:
    """
    Linear centered kernel alignment of the embeddings X and Y of the same images, ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) with centered
    columns and Frobenius norms (S. Kornblith et al., arXiv 1905.00414). It is 1 for embeddings that differ by a
    rotation, a factor and a shift.

    With few images beside the width even independent embeddings are alike by this measure. The debiased one, with the
    unbiased estimate of HSIC (L. Song et al., JMLR 13, 2012; T. Nguyen et al., arXiv 2010.15327, equation 3), is about
    0 for them, and may be negative.

    Computed in float64 on the CPU, with matrices of images by images only where there are fewer images than columns.

    Args:
        first (`torch.Tensor` or `np.ndarray` of shape `(num_images, first_size)`): Embeddings by one network.
        second (`torch.Tensor` or `np.ndarray` of shape `(num_images, second_size)`): By the other, in the same order.
        debiased (`bool`, *optional*, defaults to `False`): Take the unbiased estimate; needs at least 4 images.

    Returns:
        `float`: In [0, 1]; at most 1 with `debiased`.

    Raises:
        ValueError: The shapes do not fit, there are too few images, a number is not finite, or all images have the
            same embedding.
    """
    x, y = _centered(first, "first"), _centered(second, "second")
    if len(x) != len(y):
        raise ValueError(f"`first` has {len(x)} images and `second` has {len(y)}; both need the same images")
    if debiased and len(x) < 4:
        raise ValueError(f"the debiased CKA needs at least 4 images, and there are {len(x)}")
    own, other = _own_alignment(x, "first", debiased), _own_alignment(y, "second", debiased)
    return float(_alignment(x, y, debiased) / (own.sqrt() * other.sqrt()))


def effective_dimension(embeddings: Any) -> float:
    """
    How many directions embeddings use: the participation ratio (Σ λ)² / Σ λ² of the eigenvalues λ of their covariance
    (P. Gao et al., "A theory of multineuronal dimensionality, dynamics and measurement", bioRxiv 214262).

    Args:
        embeddings (`torch.Tensor` or `np.ndarray` of shape `(num_images, embedding_size)`): Of at least two images.

    Returns:
        `float`: From 1, all on one line, to `embedding_size`, spread alike in all directions.

    Raises:
        ValueError: As in [`linear_cka`].
    """
    rows = _centered(embeddings, "embeddings")
    # Both sums are traces, of the covariance and of its square, so that no eigenvalue has to be computed.
    return float(rows.square().sum().square() / _squared_norm(rows, rows))


def class_alignment(embeddings: Any, labels: Any, class_weights: Any) -> float:
    """
    Mean cosine between the embedding of an image, from which the mean of all is taken off, and the weights of its class
    in a classifier: 1 for the self-duality of neural collapse (V. Papyan et al., arXiv 2008.08186, NC3).

    Args:
        embeddings (`torch.Tensor` or `np.ndarray` of shape `(num_images, embedding_size)`): Of at least two images.
        labels (`torch.Tensor` or `np.ndarray` of shape `(num_images,)`): Class numbers.
        class_weights (`torch.Tensor` or `np.ndarray` of shape `(num_labels, embedding_size)`): Of a classifier.

    Returns:
        `float`: In [-1, 1].

    Raises:
        ValueError: The shapes do not fit, a label is no class number, a class that occurs has the weight 0, or as in
            [`linear_cka`].
    """
    rows, weights = _centered(embeddings, "embeddings"), _matrix(class_weights, "class_weights")
    labels = torch.as_tensor(labels).cpu()
    if rows.shape[1] != weights.shape[1]:
        raise ValueError(
            f"embeddings of width {rows.shape[1]} have no angle with class weights of width {weights.shape[1]}"
        )
    check_labels(labels, len(rows), len(weights))
    zero = labels[(weights[labels] == 0).all(dim=1)]
    if len(zero):
        raise ValueError(f"the classifier has only zeros for class {int(zero[0])}, which has no direction to compare")
    return F.cosine_similarity(rows, weights[labels], dim=1).mean().item()


def check_labels(labels: torch.Tensor, num_images: int, num_labels: int) -> None:
    """
    Checks that there is a class number for every image.

    Raises:
        ValueError: The shape or dtype is another, or a number is out of range; names the first image.
    """
    if labels.shape != (num_images,) or labels.is_floating_point():
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} and dtype {labels.dtype}; expected {num_images} integer class "
            "numbers"
        )
    bad = ((labels < 0) | (labels >= num_labels)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"label {int(labels[bad[0]])} of image {bad[0]} is outside of 0 ... {num_labels - 1}")


def _alignment(a: torch.Tensor, b: torch.Tensor, debiased: bool) -> torch.Tensor:
    """HSIC of two linear kernels of centered rows, up to a factor that depends on the number of images alone."""
    squares = _squared_norm(a, b)
    if not debiased:
        return squares
    count = len(a)
    lengths_a, lengths_b = a.square().sum(dim=1), b.square().sum(dim=1)
    diagonal = count / (count - 2) * (lengths_a @ lengths_b)
    return squares - diagonal + lengths_a.sum() * lengths_b.sum() / ((count - 1) * (count - 2))


def _own_alignment(rows: torch.Tensor, name: str, debiased: bool) -> torch.Tensor:
    squares = _alignment(rows, rows, debiased)
    if debiased and squares <= _ROUNDING * _squared_norm(rows, rows):
        raise ValueError(
            f"in `{name}` every image is as far from every other, so that nothing is left without the bias; give more "
            "images, or `debiased=False`"
        )
    return squares


def _squared_norm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """‖AᵀB‖² by the smaller of two ways: width by width, or images by images."""
    if len(a) < max(a.shape[1], b.shape[1]):
        return ((a @ a.T) * (b @ b.T)).sum()
    return (a.T @ b).square().sum()


def _centered(values: Any, name: str) -> torch.Tensor:
    rows = _matrix(values, name)
    if len(rows) < 2:
        raise ValueError(f"`{name}` has {len(rows)} images; there must be at least 2")
    if not rows.isfinite().all():
        bad = int((~rows.isfinite().all(dim=1)).nonzero()[0])
        raise ValueError(f"the embedding of image {bad} in `{name}` is not finite; look at this image and the network")
    centered = rows - rows.mean(dim=0)
    if centered.norm() <= _ROUNDING * rows.norm():
        raise CollapsedEmbeddingError(f"all images have the same embedding in `{name}`; such a network has collapsed")
    return centered


def _matrix(values: Any, name: str) -> torch.Tensor:
    matrix = torch.as_tensor(values).detach().cpu().double()
    if matrix.ndim != 2:
        raise ValueError(f"`{name}` has shape {tuple(matrix.shape)}; expected two dimensions")
    return matrix
