"""The leading singular vectors of many matrices, with a gradient that is finite whatever the matrix."""

from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from .arithmetic import unit


class LeadingVectors(NamedTuple):
    """
    Attributes:
        values (`torch.Tensor` of shape `(batch_size, count)`): Singular values, the largest first; without gradient.
        vectors (`torch.Tensor` of shape `(batch_size, columns, count)`):
            Right singular vectors of length 1; zeros where the singular value is 0.
    """

    values: torch.Tensor
    vectors: torch.Tensor


def leading_vectors(matrices: torch.Tensor, count: int) -> LeadingVectors:
    """
    The `count` largest singular values of each matrix and their right singular vectors, whose signs are arbitrary.

    They come from the eigenvectors of the smaller of the two products XᵀX and XXᵀ, which takes a small part of the time
    of a singular value decomposition. The gradient of that divides by the differences of all singular values, and is
    lost as soon as two of them are zero; here only those of the leading ones count, and equal ones add nothing.

    Args:
        matrices (`torch.Tensor` of shape `(batch_size, rows, columns)`): X.
        count (`int`): How many; there are no more than rows or columns.
    """
    count = min(count, *matrices.shape[1:])
    if matrices.shape[1] >= matrices.shape[2]:
        values, vectors = _LeadingEigenvectors.apply(matrices.mT @ matrices, count)
    else:
        values, left = _LeadingEigenvectors.apply(matrices @ matrices.mT, count)
        vectors = unit(matrices.mT @ left, dim=1)
    significant = (values > _rounding(values)).unsqueeze(1)
    return LeadingVectors(values.clamp(min=0).sqrt(), vectors * significant)


def _rounding(values: torch.Tensor) -> torch.Tensor:
    """Eigenvalues, and differences of them, that are not larger may as well be 0; of shape `(batch_size, 1)`."""
    return 10 * torch.finfo(values.dtype).eps * values[:, :1].abs()


class _LeadingEigenvectors(torch.autograd.Function):
    """Of symmetric matrices `(batch_size, size, size)`: `(batch_size, count)` and `(batch_size, size, count)`."""

    @staticmethod
    def forward(ctx: Any, matrices: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        values, vectors = (found.flip(-1) for found in torch.linalg.eigh(matrices))
        ctx.save_for_backward(values, vectors)
        leading = values[:, :count].contiguous(), vectors[:, :, :count].contiguous()
        ctx.mark_non_differentiable(leading[0])
        return leading

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        values, vectors = ctx.saved_tensors
        count = grad.shape[2]
        gaps = values[:, None, :count] - values[:, :, None]
        inverse = torch.where(gaps.abs() > _rounding(values).unsqueeze(2), gaps, torch.inf).reciprocal()
        return vectors @ (inverse * (vectors.mT @ grad)) @ vectors[:, :, :count].mT, None
