"""Sums over all classes that are taken chunk by chunk: softmax statistics and the gradients of logits."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from .class_matrix import Chunk, ClassMatrix
from .products import add_product


# Stands for the logarithm of an empty sum; minus infinity would turn into nan as soon as it is subtracted from itself.
NOTHING = -1e30

# What is kept of the forward pass, so that the backward pass need not compute it again: as much of the chunks as this.
KEPT_BYTES = 40 * 2**20


class RunningSoftmax:
    """
    The softmax over classes that come in chunks, with the largest logit so far taken out of the exponent (Milakov and
    Gimelshein, arXiv 1805.02867).

    Args:
        queries (`torch.Tensor` of shape `(batch_size, embedding_size)`): See [`ClassMatrix.queries`].
        slopes (`torch.Tensor` of shape `(batch_size, 1)`): See [`ClassMatrix.queries`].
        classes ([`ClassMatrix`]): The classifier, or the part of it that this process holds.
        keep (`float`, *optional*, defaults to 0.0): Share of `KEPT_BYTES` that may be kept for [`Shares`].

    Attributes:
        total (`torch.Tensor` of shape `(batch_size, 1)`): Σ exp(logit − largest) so far.
        kept (`list[torch.Tensor]`): For each of the first chunks exp(logit − largest), and what was largest then.
    """

    def __init__(self, queries: torch.Tensor, slopes: torch.Tensor, classes: ClassMatrix, keep: float = 0.0) -> None:
        self._queries, self._slopes = queries, slopes
        self._highest = queries.new_full((len(queries), 1), NOTHING)
        self._memory = classes.memory(queries)
        self._left = int(keep * KEPT_BYTES) // queries.element_size()
        self.total = torch.zeros_like(self._highest)
        self.kept: list[torch.Tensor] = []

    def logits(self, chunk: Chunk) -> torch.Tensor:
        """Logits of shape `(batch_size, size)`, which may be changed before they are given to `add`."""
        # What was too much for one chunk is too much for all later ones, so that the kept chunks are the first ones.
        self._left -= len(self._queries) * len(chunk.rows)
        memory = torch.empty_like(self._memory) if self._left >= 0 else self._memory
        return chunk.logits(self._queries, self._slopes, memory)

    def add(self, logits: torch.Tensor) -> torch.Tensor:
        """
        Adds a chunk, which becomes exp(logit − largest) in place.

        Returns:
            `torch.Tensor` of shape `(batch_size, 1)`: What all sums over earlier chunks have to be multiplied with.
        """
        highest = torch.maximum(self._highest, logits.amax(dim=1, keepdim=True))
        shrinking = self._highest.sub_(highest).exp_()
        _exp(logits.sub_(highest))
        self.total.mul_(shrinking).add_(logits.sum(dim=1, keepdim=True))
        self._highest = highest
        if self._left >= 0:
            self.kept += [logits, highest.clone()]
        return shrinking

    def mean(self, sums: torch.Tensor) -> torch.Tensor:
        """`sums` over the weights, of shape `(batch_size, n)`, divided by their total in place; 0 without any class."""
        # The largest of any weights is 1, so that a smaller total is that of none.
        return sums.div_(self.total.clamp(min=1))

    def log_sum(self) -> torch.Tensor:
        """log Σ exp(logit) of shape `(batch_size, 1)`; `NOTHING` where there was nothing to add."""
        return (self._highest + self.total.log()).clamp_(min=NOTHING)


class Shares:
    """
    The values of a softmax, chunk by chunk, once its normalizer is known.

    Args:
        queries, slopes, classes: As in [`RunningSoftmax`].
        log_sum (`torch.Tensor` of shape `(batch_size, 1)`): The normalizer.
        kept (`Sequence[torch.Tensor]`): What [`RunningSoftmax`] kept; the logits of other chunks are computed again.
    """

    def __init__(
        self,
        queries: torch.Tensor,
        slopes: torch.Tensor,
        classes: ClassMatrix,
        log_sum: torch.Tensor,
        kept: Sequence[torch.Tensor],
    ) -> None:
        self._queries, self._slopes, self._log_sum = queries, slopes, log_sum
        self._memory = classes.memory(queries)
        self._kept = iter(zip(kept[::2], kept[1::2], strict=True))

    def next(self, chunk: Chunk) -> torch.Tensor:
        """exp(logit − log_sum) of shape `(batch_size, size)`, which may be overwritten."""
        kept = next(self._kept, None)
        if kept is None:
            return _exp(chunk.logits(self._queries, self._slopes, self._memory).sub_(self._log_sum))
        weights, highest = kept
        memory = self._memory[: weights.numel()].view_as(weights)
        return torch.mul(weights, (highest - self._log_sum).exp_(), out=memory)


def _exp(exponents: torch.Tensor) -> torch.Tensor:
    """In place. The power of two takes a quarter of the time on a CPU; it differs in the last digit."""
    return exponents.mul_(math.log2(math.e)).exp2_()


class SoftmaxMeans(NamedTuple):
    """
    What the softmax p over all classes says without being held itself.

    Attributes:
        log_sum (`torch.Tensor` of shape `(batch_size,)`): Its normalizer, log Σ exp(logit).
        rows (`torch.Tensor` of shape `(batch_size, embedding_size)`):
            Σ p w, the mean of the class rows; it is also the derivative of `log_sum` with respect to the query.
        bias (`torch.Tensor` of shape `(batch_size,)`): Σ p b, 0 without bias.
    """

    log_sum: torch.Tensor
    rows: torch.Tensor
    bias: torch.Tensor


@torch.no_grad()
def softmax_means(queries: torch.Tensor, slopes: torch.Tensor, classes: ClassMatrix) -> SoftmaxMeans:
    """
    Normalizer and means of the softmax in one pass over the classes.

    Args:
        queries (`torch.Tensor` of shape `(batch_size, embedding_size)`): See [`ClassMatrix.queries`].
        slopes (`torch.Tensor` of shape `(batch_size, 1)`): See [`ClassMatrix.queries`].
        classes ([`ClassMatrix`]): The classifier, or the part of it that this process holds.
    """
    softmax = RunningSoftmax(queries, slopes, classes)
    rows, bias = torch.zeros_like(queries), torch.zeros_like(slopes)
    for chunk in classes.chunks(len(queries), queries.dtype):
        weights = softmax.logits(chunk)
        shrinking = softmax.add(weights)
        if chunk.bias is not None:
            bias.mul_(shrinking).add_((weights @ chunk.bias).unsqueeze(1))
        chunk.add_rows(weights, rows.mul_(shrinking))
    return SoftmaxMeans(softmax.log_sum().squeeze(1), softmax.mean(rows), softmax.mean(bias).squeeze(1))


def with_gradient(values: torch.Tensor, queries: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """
    `values`, `(batch_size,)`, as a function of `queries` whose derivative is known, `(batch_size, embedding_size)`.
    """
    return _WithGradient.apply(queries, values, gradients)


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: torch.Tensor, values: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gradients)
        return values.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return gradients * grad.unsqueeze(1), None, None


class LogitGradients:
    """
    Carries the gradient of logits on to queries, weight and bias, chunk by chunk.

    Args:
        queries (`torch.Tensor` of shape `(batch_size, embedding_size)`): What the logits were computed from.
        slopes (`torch.Tensor` of shape `(batch_size, 1)`): What the biases were multiplied with.
        classes ([`ClassMatrix`]): What the logits were computed with.
        needed (`tuple[bool, ...]`): Whether queries, weight and bias want a gradient.

    Attributes:
        queries (`torch.Tensor` of shape `(batch_size, embedding_size)`, *optional*):
            The sum so far, `None` where not needed; likewise `weight` and `bias`.
    """

    def __init__(
        self, queries: torch.Tensor, slopes: torch.Tensor, classes: ClassMatrix, needed: tuple[bool, ...]
    ) -> None:
        self._inputs, self._slopes, self._classes = queries, slopes, classes
        self.queries = torch.zeros_like(queries) if needed[0] else None
        self._weight = self._buffer(classes.weight) if needed[1] else None
        self._bias = self._buffer(classes.bias) if needed[2] and classes.bias is not None else None

    @property
    def weight(self) -> torch.Tensor | None:
        """The sum so far, of the shape of the weight."""
        return self._without_padding(self._weight)

    @property
    def bias(self) -> torch.Tensor | None:
        """The sum so far, of the shape of the bias."""
        return self._without_padding(self._bias)

    def _without_padding(self, sums: torch.Tensor | None) -> torch.Tensor | None:
        return sums[: len(self._classes.weight)] if sums is not None and self._classes.padded else sums

    def _buffer(self, parameter: torch.Tensor) -> torch.Tensor:
        if self._classes.chosen is None:
            # Every row is written once.
            return torch.empty_like(parameter)
        # Rows that are none have one place, behind the others.
        return parameter.new_zeros((len(parameter) + self._classes.padded, *parameter.shape[1:]))

    def add(self, chunk: Chunk, gradient: torch.Tensor) -> None:
        """Adds what `gradient`, the derivative by the logits of `chunk`, leads to; it is overwritten."""
        if self._bias is not None:
            self._bias[self._rows_of(chunk)] = (gradient.t() @ self._slopes).squeeze(1).to(self._bias.dtype)
        factor = chunk.as_factor(gradient)
        if self.queries is not None:
            add_product(factor, chunk.factors, self.queries)
        if self._weight is not None:
            self._write_weight(self._weight, chunk, factor)

    def _write_weight(self, weight: torch.Tensor, chunk: Chunk, factor: torch.Tensor) -> None:
        # Straight into its place where it has the form that is computed in.
        in_place = self._classes.chosen is None and weight.dtype == chunk.rows.dtype
        rows = weight[self._rows_of(chunk)] if in_place else torch.empty_like(chunk.rows)
        chunk.row_gradients(factor, self._inputs, rows)
        if not in_place:
            weight[self._rows_of(chunk)] = rows.to(weight.dtype)

    def _rows_of(self, chunk: Chunk) -> slice | torch.Tensor:
        span = slice(chunk.start, chunk.start + len(chunk.rows))
        return span if self._classes.chosen is None else self._classes.chosen[span]
