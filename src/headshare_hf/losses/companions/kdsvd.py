"""Distillation through singular vectors: what a map is made of, and how the next one differs."""

import torch

from .alignment import check_count, check_rank, check_same_channels
from .arithmetic import unit
from .base import CompanionLoss
from .features import FeatureShapes, NeededFeatures
from .singular_vectors import leading_vectors


# How many more vectors the student has to choose from.
_SPARE = 3


class KDSVDLoss(CompanionLoss):
    """
    Squared difference of the radial basis functions exp(−(a − b)² / 8) between the leading singular vectors of
    neighbouring stages, summed over all pairs of channels, averaged over the images and added up over the stages (Lee,
    Kim and Song, "Self-supervised Knowledge Distillation using Singular Value Decomposition", arXiv 1807.06819).

    The singular vectors are those of a map as a matrix, positions times channels, and live in the space of the
    channels. Of the student's leading four each of the teacher's takes the one with the largest cosine, with its sign.

    The sign of a singular vector is arbitrary, but the loss depends on it. Here the sum of each of the teacher's vectors
    is positive; with the signs that a library happens to return, as in RepDistiller, the value differs from that, from
    device to device, and for the same stage from image to image.

    Args:
        student, teacher: See [`CompanionLoss`].
        rank (`int`, *optional*, defaults to 1): How many vectors of the teacher are used.

    Raises:
        ValueError: The numbers of stages or of their channels differ, or `rank` is below 1 or more than some map has
            vectors: as many as channels or positions, whichever are fewer.
    """

    student_needs = ("hidden_states",)
    teacher_needs = ("hidden_states",)

    def __init__(self, student: FeatureShapes, teacher: FeatureShapes, rank: int = 1) -> None:
        super().__init__(student, teacher)
        check_same_channels(type(self).__name__, student.stages, teacher.stages, least=2)
        check_count(type(self).__name__, rank=rank)
        check_rank(type(self).__name__, rank, student.stages, teacher.stages)
        self.rank = rank

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]."""
        stages = [self._vectors(*pair) for pair in zip(student.stages, teacher.stages, strict=True)]
        return torch.stack([_difference(*pair) for pair in zip(stages[:-1], stages[1:], strict=True)]).sum()

    def _vectors(self, student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The vectors of both, `(batch_size, channels, rank)`, times the teacher's singular values of unit length."""
        values, targets = leading_vectors(teacher.flatten(2).mT, self.rank)
        targets = targets * _signs(targets)
        candidates = leading_vectors(student.flatten(2).mT, self.rank + _SPARE).vectors
        scale = unit(values).unsqueeze(1)
        return _nearest(candidates, targets) * scale, targets * scale


def _difference(before: tuple[torch.Tensor, torch.Tensor], after: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Of the vectors of student and teacher at neighbouring stages."""
    own, other = (_radial_bases(*pair) for pair in zip(before, after, strict=True))
    return (own - other).square().sum() / len(own)


def _signs(vectors: torch.Tensor) -> torch.Tensor:
    """What makes the sum of every vector positive, `(batch_size, 1, rank)`."""
    return torch.where(vectors.sum(dim=1, keepdim=True) < 0, -1, 1)


def _nearest(candidates: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """For each of the targets the candidate, or its opposite, with the largest cosine."""
    cosines = (candidates.mT @ targets).detach()
    best = cosines.abs().argmax(dim=1, keepdim=True)
    signs = cosines.gather(1, best).sign()
    return candidates.gather(2, best.expand(-1, candidates.shape[1], -1)) * signs


def _radial_bases(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """`(batch_size, channels after, channels before, rank)`."""
    return (-(after.unsqueeze(2) - before.unsqueeze(1)).square() / 8).exp()
