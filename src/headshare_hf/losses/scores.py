"""What a head says of a batch of embeddings, and the two losses that are taken of it."""

from typing import NamedTuple, Protocol

import torch
from torch import nn

from ..models import CosineHead
from .chunked_cross_entropy import chunked_cross_entropy
from .chunked_kd import chunked_kd
from .cross_entropy import cross_entropy
from .kd import kd_loss
from .sharded import sharded_cross_entropy, sharded_kd
from .teacher_moments import TeacherMoments, moments_kd


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
        label_smoothing (`float`, *optional*, defaults to 0.0): See [`cross_entropy`].
    """

    def __init__(
        self,
        logits: torch.Tensor,
        head: nn.Module | None = None,
        embeddings: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self.logits = logits
        self.head = head
        self._embeddings = embeddings
        self._label_smoothing = label_smoothing

    def cross_entropy(self, labels: torch.Tensor) -> torch.Tensor:
        """See [`Scores`]."""
        logits = self.logits
        if isinstance(self.head, CosineHead):
            if self._embeddings is None:
                raise ValueError(f"the margin of {type(self.head).__name__} needs the embeddings that it read")
            logits = self.head.margin_logits(logits, labels, self._embeddings)
        return cross_entropy(logits, labels, self._label_smoothing)

    def divergence(self, teacher: Scores, temperature: float, teacher_temperature: float) -> torch.Tensor:
        """See [`Scores`]."""
        if not isinstance(teacher, DenseScores):
            raise TypeError(f"logits cannot be compared with {type(teacher).__name__}; give both in the same form")
        return kd_loss(self.logits, teacher.logits, temperature, teacher_temperature)


class Sampling(NamedTuple):
    """
    Classes that stand for all of them in the cross-entropy, see [`chunked_cross_entropy`].

    Attributes:
        rate (`float`): Share of the classes, in (0, 1].
        seed (`int`): Of the run.
        step (`int`): Of the training; each draws other classes.
    """

    rate: float = 1.0
    seed: int = 0
    step: int = 0


ALL_CLASSES = Sampling()


class ChunkedScores:
    """
    [`Scores`] as a head and what it reads; the losses go over the classes in chunks and never hold the logits.

    Args:
        head (`nn.Module`): An `nn.Linear` or a [`CosineHead`].
        embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): What it reads.
        sampling ([`Sampling`], *optional*): Which classes the cross-entropy sees; all where not given.
        twin (`nn.Module`, *optional*):
            A frozen head with the same weights, taken for the divergence: that of the teacher is gone through once for both.
    """

    def __init__(
        self,
        head: nn.Module,
        embeddings: torch.Tensor,
        sampling: Sampling = ALL_CLASSES,
        twin: nn.Module | None = None,
    ) -> None:
        self.head: nn.Module | None = head
        self.embeddings = embeddings
        self._classes = head
        self._compared = twin or head
        self._sampling = sampling

    def cross_entropy(self, labels: torch.Tensor) -> torch.Tensor:
        """See [`Scores`]."""
        return chunked_cross_entropy(self.embeddings, labels, self._classes, *self._sampling)

    def divergence(self, teacher: Scores, temperature: float, teacher_temperature: float) -> torch.Tensor:
        """See [`Scores`]."""
        if isinstance(teacher, MomentScores):
            return teacher.divergence_of(self.embeddings, self._compared, temperature)
        if not isinstance(teacher, ChunkedScores):
            raise TypeError(f"chunks cannot be compared with {type(teacher).__name__}; give both in the same form")
        return chunked_kd(
            self.embeddings, self._compared, teacher.embeddings, teacher._classes, temperature, teacher_temperature
        )


class MomentScores:
    """
    [`Scores`] of a teacher of which only [`TeacherMoments`] are left. They teach students that its own frozen head reads.

    Args:
        head (`nn.Module`): The teacher's classifier.
        moments ([`TeacherMoments`]): Taken of it.
    """

    def __init__(self, head: nn.Module, moments: TeacherMoments) -> None:
        self.head: nn.Module | None = head
        self._classes, self._moments = head, moments

    def cross_entropy(self, labels: torch.Tensor) -> torch.Tensor:
        """Not known any more."""
        raise TypeError("the moments of a teacher say nothing of single classes; store its embeddings")

    def divergence(self, teacher: Scores, temperature: float, teacher_temperature: float) -> torch.Tensor:
        """Not known any more."""
        raise TypeError("the moments of a teacher cannot be taught themselves; store its embeddings")

    def divergence_of(self, embeddings: torch.Tensor, head: nn.Module, temperature: float) -> torch.Tensor:
        """
        [`moments_kd`] of a student's embeddings.

        Raises:
            TypeError: Another head reads them than that of the teacher.
        """
        if head is not self._classes:
            raise TypeError(
                f"the moments of a teacher teach through its own {type(self._classes).__name__} only, and another one reads "
                "the student; store its embeddings"
            )
        return moments_kd(embeddings, head, self._moments, temperature)


class ShardedScores:
    """
    [`Scores`] over classes that are split over the processes. The losses are those of the images of all processes.

    Args:
        head_shard (`nn.Module`): An `nn.Linear` or a [`CosineHead`] with the classes of this process.
        shard_start (`int`): Number of the first one.
        embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): What it reads, of the images of this process.
        sampling ([`Sampling`], *optional*): Which classes the cross-entropy sees; all where not given.
        twin (`nn.Module`, *optional*): As in [`ChunkedScores`], with the same classes.
    """

    def __init__(
        self,
        head_shard: nn.Module,
        shard_start: int,
        embeddings: torch.Tensor,
        sampling: Sampling = ALL_CLASSES,
        twin: nn.Module | None = None,
    ) -> None:
        self.head: nn.Module | None = head_shard
        self.embeddings = embeddings
        self._classes = head_shard
        self._compared = twin or head_shard
        self._start = shard_start
        self._sampling = sampling

    def cross_entropy(self, labels: torch.Tensor) -> torch.Tensor:
        """See [`Scores`]."""
        rate, seed, step = self._sampling
        return sharded_cross_entropy(
            self.embeddings, labels, self._classes, self._start, sample_rate=rate, seed=seed, step=step
        )

    def divergence(self, teacher: Scores, temperature: float, teacher_temperature: float) -> torch.Tensor:
        """See [`Scores`]."""
        if not isinstance(teacher, ShardedScores):
            raise TypeError(f"shards cannot be compared with {type(teacher).__name__}; give both in the same form")
        return sharded_kd(
            self.embeddings, self._compared, teacher.embeddings, teacher._classes, temperature, teacher_temperature
        )
