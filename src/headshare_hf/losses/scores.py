"""What a head says of a batch of embeddings, and the two losses that are taken of it."""

from typing import Protocol

import torch
from torch import nn

from ..models import CosineHead
from .cross_entropy import cross_entropy
from .kd import kd_loss


class Scores(Protocol):
    """
    The scores of a batch for every class, in whatever form the losses are computed from.

    Attributes:
        head (`nn.Module`, *optional*): The classifier that they come from, where it is known.
    """

    head: nn.Module | None

    def cross_entropy(self, labels: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy, with the margin of the head; see [`cross_entropy`]."""
        ...

    def divergence(self, teacher: "Scores", temperature: float, teacher_temperature: float) -> torch.Tensor:
        """Softened KL from the scores of a teacher to these, without any margin; see [`kd_loss`]."""
        ...


class DenseScores:
    """
    [`Scores`] as a matrix of logits, which is fastest where there are few classes.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Scores before the softmax.
        head (`nn.Module`, *optional*): The classifier that they come from, asked for its margin and its scale only.
        embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`, *optional*):
            What that classifier read; a head with a margin needs it.
    """

    def __init__(
        self, logits: torch.Tensor, head: nn.Module | None = None, embeddings: torch.Tensor | None = None
    ) -> None:
        self.logits = logits
        self.head = head
        self._embeddings = embeddings

    def cross_entropy(self, labels: torch.Tensor) -> torch.Tensor:
        """See [`Scores`]."""
        logits = self.logits
        if isinstance(self.head, CosineHead):
            if self._embeddings is None:
                raise ValueError(f"the margin of {type(self.head).__name__} needs the embeddings that it read")
            logits = self.head.margin_logits(logits, labels, self._embeddings)
        return cross_entropy(logits, labels)

    def divergence(self, teacher: Scores, temperature: float, teacher_temperature: float) -> torch.Tensor:
        """See [`Scores`]."""
        if not isinstance(teacher, DenseScores):
            raise TypeError(f"logits cannot be compared with {type(teacher).__name__}; give both in the same form")
        return kd_loss(self.logits, teacher.logits, temperature, teacher_temperature)
