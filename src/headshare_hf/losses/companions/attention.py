"""Attention transfer: the student looks where the teacher looks."""

import torch
from torch.nn import functional as F

from .alignment import check_positions, check_same_number
from .arithmetic import attention_maps, pool_alike
from .base import CompanionLoss
from .features import FeatureShapes, NeededFeatures


class AttentionLoss(CompanionLoss):
    """
    Mean squared difference of the attention maps, added up over the stages (Zagoruyko and Komodakis, arXiv 1612.03928,
    equation 2 with p = 2, and the square of its norm as a mean over the positions, as in the authors' code).

    An attention map is the mean square over the channels, scaled to length 1. Where the sizes of a stage differ, the
    larger map is averaged down first.

    Args:
        student, teacher: See [`CompanionLoss`].

    Raises:
        ValueError: The numbers of stages differ, or all maps have a single position.
    """

    student_needs = ("hidden_states",)
    teacher_needs = ("hidden_states",)

    def __init__(self, student: FeatureShapes, teacher: FeatureShapes) -> None:
        super().__init__(student, teacher)
        check_same_number(type(self).__name__, student.stages, teacher.stages)
        check_positions(type(self).__name__, student.stages, teacher.stages)

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]."""
        pairs = [pool_alike(*pair) for pair in zip(student.stages, teacher.stages, strict=True)]
        losses = [F.mse_loss(attention_maps(own), attention_maps(other)) for own, other in pairs]
        return torch.stack(losses).sum()
