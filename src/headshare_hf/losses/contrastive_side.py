"""One side of the contrastive loss: embeddings of a batch against the memory of the other network."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .negatives import Contrast


EPSILON = 1e-7
# Scores held at a time, so that memory does not grow with the batch: 64 MB of float32.
_BLOCK = 2**24


def side_loss(
    anchors: torch.Tensor,
    memory: torch.Tensor,
    contrast: Contrast,
    temperature: float,
    normalization: torch.Tensor,
) -> torch.Tensor:
    """
    Minus the objective of equation (18) of arXiv 1910.10699, averaged over the batch, in the form of softplus: with
    u = log(x / (N / M + 1e-7)), log h is -softplus(-u) and log(1 - h) is -softplus(u) up to a constant.

    Args:
        anchors (`torch.Tensor` of shape `(batch_size, embedding_size)`): Unit embeddings.
        memory (`torch.Tensor` of shape `(num_images, embedding_size)`): Of the other network; a constant.
        contrast ([`Contrast`]): Which entries of the memory the anchors are compared with.
        temperature (`float`): τ, unitless.
        normalization (`torch.Tensor` of shape `()`): Z.

    Returns:
        `torch.Tensor` of shape `()`.
    """
    return _SideLoss.apply(anchors, memory, contrast, temperature, normalization)


def side_normalization(
    anchors: torch.Tensor, memory: torch.Tensor, contrast: Contrast, temperature: float
) -> torch.Tensor:
    """Z, of shape `()`: the mean of exp(score / τ) over positives and negatives, times the number of images."""
    total, count = anchors.new_zeros(()), anchors.new_zeros(())
    bank = _bank(memory, contrast)
    for rows, part in _blocks(anchors, bank, contrast):
        positive, negative, _ = _scores(rows, memory, bank, part)
        total += positive.div_(temperature).exp_().sum() + negative.div_(temperature).exp_().sum()
        count += len(rows) + _counts(part, bank).sum()
    return total / count * len(memory)


class _SideLoss(torch.autograd.Function):
    """Loss and gradient in one pass, so that nothing but the gradient of the anchors is kept for the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: torch.Tensor,
        memory: torch.Tensor,
        contrast: Contrast,
        temperature: float,
        normalization: torch.Tensor,
    ) -> torch.Tensor:
        bank = _bank(memory, contrast)
        parts = [
            _block_loss(rows, memory, bank, part, temperature, normalization)
            for rows, part in _blocks(anchors, bank, contrast)
        ]
        losses, gradients = zip(*parts, strict=True)
        ctx.save_for_backward(torch.cat(gradients) / len(anchors))
        return torch.stack(losses).sum() / len(anchors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * scale, None, None, None, None


def _block_loss(
    anchors: torch.Tensor,
    memory: torch.Tensor,
    bank: torch.Tensor,
    contrast: Contrast,
    temperature: float,
    normalization: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum over some anchors, and its gradient with respect to them."""
    positive, negative, pull_back = _scores(anchors, memory, bank, contrast)
    counts = _counts(contrast, bank)
    prior = counts / len(memory)
    offset = (normalization * (prior + EPSILON)).log_()
    positive.div_(temperature).sub_(offset)
    negative.div_(temperature).sub_(offset[:, None])
    constant = counts * torch.log1p(EPSILON / prior)
    loss = F.softplus(-positive).sum() + F.softplus(negative).sum() + constant.sum()
    gradient = pull_back(negative.sigmoid_())
    gradient -= torch.sigmoid(-positive)[:, None] * memory[contrast.positives]
    return loss, gradient.div_(temperature)


def _scores(
    anchors: torch.Tensor, memory: torch.Tensor, bank: torch.Tensor, contrast: Contrast
) -> tuple[torch.Tensor, torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """Of the positives, of the negatives, and what turns a gradient of the latter into one of the anchors."""
    positive = (anchors * memory[contrast.positives]).sum(dim=1)
    scores, chosen = anchors @ bank.t(), contrast.negatives
    negative = scores if chosen is None else scores.gather(1, chosen)
    if contrast.excluded is not None:
        negative.masked_fill_(contrast.excluded, -math.inf)

    def pull_back(gradient: torch.Tensor) -> torch.Tensor:
        # Into the same memory: the scores are not needed any more.
        return (gradient if chosen is None else scores.zero_().scatter_add_(1, chosen, gradient)) @ bank

    return positive, negative, pull_back


def _bank(memory: torch.Tensor, contrast: Contrast) -> torch.Tensor:
    """The rows that the batch needs."""
    # Several times faster than indexing with brackets.
    return memory if contrast.pool is None else memory.index_select(0, contrast.pool)


def _counts(contrast: Contrast, bank: torch.Tensor) -> torch.Tensor:
    """Number of negatives of each anchor."""
    if contrast.excluded is not None:
        # The prior of a row without any negative would be 0.
        return contrast.excluded.logical_not().sum(dim=1).clamp(min=1).to(bank.dtype)
    count = len(bank) if contrast.negatives is None else contrast.negatives.shape[1]
    return bank.new_full(contrast.positives.shape, count)


def _blocks(anchors: torch.Tensor, bank: torch.Tensor, contrast: Contrast) -> Iterator[tuple[torch.Tensor, Contrast]]:
    """Anchors and what they are compared with, as many at a time as [`_BLOCK`] allows."""
    size = max(1, _BLOCK // len(bank))
    for start in range(0, len(anchors), size):
        rows = slice(start, start + size)
        negatives = None if contrast.negatives is None else contrast.negatives[rows]
        excluded = None if contrast.excluded is None else contrast.excluded[rows]
        yield anchors[rows], Contrast(contrast.positives[rows], negatives, contrast.pool, excluded)
