"""The weights of a classifier, read a chunk of classes at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..models import CosineHead
from .products import add_product, product, rounded_factors


# As in `torch.nn.functional.normalize`, so that a center of length zero has the same logits as in the dense form.
_SMALLEST_NORM = 1e-12

# Here the chunks save 4 to 80 MB with 64 or 256 images of 512 dimensions, and are 0.8 to 1.5 times as fast on two cores, as
# the loss may be; with more classes they save more: benchmarks/class_counts.py.
CHUNKED_FROM = 10_000
# A chunk of logits should stay in the cache between the operations on it: a second thread brings its own cache.
_CHUNK_OF_ONE_THREAD, _CHUNK_OF_MORE_THREADS = 1024, 4096
# Elsewhere each operation costs a launch, which fewer and larger chunks make up for.
_CHUNK_OF_AN_ACCELERATOR = 65536
# What a chunk of logits may need with large batches, in numbers: 16 and 64 MB of float32.
_LOGITS, _LOGITS_OF_AN_ACCELERATOR = 2**22, 2**24
_SMALLEST_CHUNK = 256


class Chunk:
    """
    Some consecutive classes of a [`ClassMatrix`].

    Attributes:
        start (`int`): Position of the first one.
        rows (`torch.Tensor` of shape `(size, embedding_size)`): Their weights, at least float32.
        inverse (`torch.Tensor` of shape `(size,)`, *optional*): What each row is multiplied with to have length 1.
        bias (`torch.Tensor` of shape `(size,)`, *optional*): Their biases.
        factors (`torch.Tensor` of shape `(size, embedding_size)`): The rows as they are multiplied.
    """

    def __init__(
        self,
        start: int,
        rows: torch.Tensor,
        inverse: torch.Tensor | None,
        bias: torch.Tensor | None,
        factor_type: torch.dtype,
    ) -> None:
        self.start = start
        self.rows = rows
        self.inverse = inverse
        self.bias = bias
        self.factors = rows
        # Results are multiplied, which is less work than rows; but in half precision rows come with their length.
        self._factor_of_results = inverse
        if factor_type != rows.dtype:
            self.factors = (rows if inverse is None else rows * inverse.unsqueeze(1)).to(factor_type)
            self._factor_of_results = None

    def logits(self, queries: torch.Tensor, slopes: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """
        What the classes say of each query, in the first elements of `memory`.

        Args:
            queries (`torch.Tensor` of shape `(batch_size, embedding_size)`): See [`ClassMatrix.queries`].
            slopes (`torch.Tensor` of shape `(batch_size, 1)`): What the biases are multiplied with, 1 / T.
            memory (`torch.Tensor`): Room for at least `batch_size * size` numbers; overwritten.

        Returns:
            `torch.Tensor` of shape `(batch_size, size)`.
        """
        logits = memory.view(-1)[: len(queries) * len(self.rows)].view(len(queries), len(self.rows))
        product(queries, self.factors.t(), logits)
        if self._factor_of_results is not None:
            logits.mul_(self._factor_of_results)
        return logits if self.bias is None else logits.addcmul_(slopes, self.bias)

    def add_rows(self, weights: torch.Tensor, sums: torch.Tensor) -> None:
        """
        Adds to `sums`, `(batch_size, embedding_size)`, the class rows weighted by `weights`, `(batch_size, size)`,
        which is overwritten.
        """
        add_product(self.as_factor(weights), self.factors, sums)

    def as_factor(self, weights: torch.Tensor) -> torch.Tensor:
        """What `factors` are multiplied with to be weighted by `weights`, `(batch_size, size)`, which is overwritten."""
        if self._factor_of_results is not None:
            weights.mul_(self._factor_of_results)
        return weights.to(self.factors.dtype)

    def row_gradients(self, weights: torch.Tensor, queries: torch.Tensor, out: torch.Tensor) -> None:
        """
        The derivative by the rows.

        Args:
            weights (`torch.Tensor` of shape `(batch_size, size)`): That by the logits, after `as_factor`.
            queries (`torch.Tensor` of shape `(batch_size, embedding_size)`): What the logits were computed from.
            out (`torch.Tensor` of shape `(size, embedding_size)`): Overwritten.
        """
        product(weights.t(), queries.to(weights.dtype), out)
        if self.inverse is None:
            return
        if self._factor_of_results is None:
            out.mul_(self.inverse.unsqueeze(1))
        # The length of a row changes nothing: what points along the row is taken out.
        along = torch.linalg.vecdot(out, self.rows).mul_(self.inverse.square())
        out.addcmul_(self.rows, along.unsqueeze(1), value=-1)

    def locate(self, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Where the class of each query lies in this chunk: positions and whether it does lie there, both of shape
        `(batch_size, 1)`. A class elsewhere has a position too, which counts for nothing.
        """
        local = (columns - self.start).unsqueeze(1)
        return local.clamp(0, len(self.rows) - 1), (local >= 0) & (local < len(self.rows))


@dataclass(frozen=True)
class ClassMatrix:
    """
    What a classifier computes its logits from, for losses that never hold the logits of all classes.

    Attributes:
        weight (`torch.Tensor` of shape `(num_labels, embedding_size)`): One row a class.
        bias (`torch.Tensor` of shape `(num_labels,)`, *optional*): One number a class.
        scale (`float`, *optional*): The factor s of a cosine head, whose rows and embeddings have length 1.
        chosen (`torch.Tensor` of `int64` and shape `(size,)`, *optional*):
            Rows that stand for all, in ascending order. Gradients of the others are 0.
        padded (`bool`, *optional*, defaults to `False`):
            Whether `chosen` may end with `num_labels`, once or more: rows that are none, with logits of minus infinity.
        rounded (`torch.dtype`, *optional*): What the factors of products are rounded to, see [`rounded_factors`].
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float | None = None
    chosen: torch.Tensor | None = None
    rounded: torch.dtype | None = None
    padded: bool = False

    @classmethod
    def of(cls, head: nn.Module) -> "ClassMatrix":
        """
        The matrix of an `nn.Linear` or a [`CosineHead`], or of the part of either that one process holds. Where autocast is
        on, its products are rounded accordingly, also later in the backward pass.

        Raises:
            TypeError: The head is of another kind.
        """
        if isinstance(head, CosineHead):
            return cls(head.weight, scale=head.scale, rounded=rounded_factors(head.weight.device))
        if isinstance(head, nn.Linear):
            return cls(head.weight, head.bias, rounded=rounded_factors(head.weight.device))
        raise TypeError(
            f"class chunks are read from nn.Linear and CosineHead, not from {type(head).__name__}; "
            "take `cross_entropy` and `kd_loss` of its logits"
        )

    def __len__(self) -> int:
        return len(self.weight if self.chosen is None else self.chosen)

    def dtype_with(self, embeddings: torch.Tensor) -> torch.dtype:
        """What the losses are computed in: float32, or float64 where embeddings or weights have it."""
        return torch.promote_types(torch.promote_types(embeddings.dtype, self.weight.dtype), torch.float32)

    def queries(self, embeddings: torch.Tensor, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Embeddings in the form whose product with the rows is the logits divided by the temperature, up to the bias.

        Args:
            embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): As the classifier reads them.
            temperature (`float`, *optional*, defaults to `1.0`): T, unitless.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Queries of shape `(batch_size, embedding_size)`, with the gradient to
            the embeddings, and the factors of the bias of shape `(batch_size, 1)`.

        Raises:
            ValueError: The embeddings have another width than the rows.
        """
        if embeddings.shape[1] != self.weight.shape[1]:
            raise ValueError(
                f"`embeddings` have width {embeddings.shape[1]} and the head reads {self.weight.shape[1]}; "
                "put a projector between them"
            )
        vectors = embeddings.to(self.dtype_with(embeddings))
        slopes = vectors.new_full((len(vectors), 1), 1 / temperature)
        if self.scale is None:
            return vectors / temperature, slopes
        return F.normalize(vectors) * (self.scale / temperature), slopes

    def chunks(self, batch_size: int, dtype: torch.dtype) -> Iterator[Chunk]:
        """Goes through all classes once, at most `chunk_size(batch_size)` of them at a time."""
        size = self.chunk_size(batch_size)
        for start in range(0, len(self), size):
            span: Any = slice(start, start + size) if self.chosen is None else self.chosen[start : start + size]
            existing = self._existing(span)
            rows = self.weight[existing].to(dtype)
            inverse = None
            if self.scale is not None:
                inverse = torch.linalg.vector_norm(rows, dim=1).clamp_(min=_SMALLEST_NORM).reciprocal_()
            bias = None if self.bias is None else self.bias[existing].to(dtype)
            if self.padded:
                bias = rows.new_zeros(len(rows)) if bias is None else bias
                bias = bias.masked_fill(torch.eq(span, len(self.weight)), -torch.inf)
            # Who computes in float64 wants it exact.
            factor_type = self.rounded if self.rounded is not None and dtype == torch.float32 else dtype
            yield Chunk(start, rows, inverse, bias, factor_type)

    def logits_at(self, columns: torch.Tensor, queries: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        """
        The logit of one class for each query, without any rounding of factors.

        Args:
            columns (`torch.Tensor` of `int64` and shape `(batch_size,)`):
                The classes; a number that is none has a logit too, which counts for nothing.
            queries (`torch.Tensor` of shape `(batch_size, embedding_size)`): See [`queries`].
            slopes (`torch.Tensor` of shape `(batch_size, 1)`): See [`queries`].

        Returns:
            `torch.Tensor` of shape `(batch_size, 1)`.
        """
        places = columns.clamp(0, len(self) - 1)
        places = places if self.chosen is None else self._existing(self.chosen[places])
        rows = self.weight[places].to(queries.dtype)
        logits = torch.linalg.vecdot(rows, queries).unsqueeze(1)
        if self.scale is not None:
            logits = logits / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_(min=_SMALLEST_NORM)
        return logits if self.bias is None else logits + slopes * self.bias[places].to(queries.dtype).unsqueeze(1)

    def _existing(self, span: Any) -> Any:
        return span.clamp(max=len(self.weight) - 1) if self.padded else span

    def chunk_size(self, batch_size: int) -> int:
        """How many classes are read at a time."""
        if self.weight.device.type == "cpu":
            size = _CHUNK_OF_ONE_THREAD if torch.get_num_threads() == 1 else _CHUNK_OF_MORE_THREADS
            logits = _LOGITS
        else:
            size, logits = _CHUNK_OF_AN_ACCELERATOR, _LOGITS_OF_AN_ACCELERATOR
        size = min(size, max(logits // max(batch_size, 1), _SMALLEST_CHUNK))
        return max(min(size, len(self)), 1)

    def memory(self, queries: torch.Tensor) -> torch.Tensor:
        """Room for the logits of one chunk."""
        return queries.new_empty(len(queries) * self.chunk_size(len(queries)))
