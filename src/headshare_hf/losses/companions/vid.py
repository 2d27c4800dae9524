"""Variational information distillation: the student's maps predict the teacher's."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .alignment import check_same_number
from .arithmetic import pool_alike
from .base import CompanionLoss
from .features import FeatureShapes, NeededFeatures


# Variance of every channel before training, and the least there is.
_INITIAL_VARIANCE = 5.0
_SMALLEST_VARIANCE = 1e-5


class VIDLoss(CompanionLoss):
    """
    Negative log likelihood of the teacher's maps under a normal distribution around what the student's predict, without
    its constant, ½ ((t − μ(s))² / σ² + log σ²), as a mean over all numbers of a stage and added up over the stages (Ahn
    et al., arXiv 1904.05835).

    Each stage has a regressor of three 1×1 convolutions for the mean, and a trained variance for each channel. Where
    the sizes of a stage differ, the larger map is averaged down first.

    Args:
        student, teacher: See [`CompanionLoss`].

    Raises:
        ValueError: The numbers of stages differ.
    """

    student_needs = ("hidden_states",)
    teacher_needs = ("hidden_states",)

    def __init__(self, student: FeatureShapes, teacher: FeatureShapes) -> None:
        super().__init__(student, teacher)
        check_same_number(type(self).__name__, student.stages, teacher.stages)
        channels = [(own[0], other[0]) for own, other in zip(student.stages, teacher.stages, strict=True)]
        self.predictors = nn.ModuleList(MapPredictor(*pair) for pair in channels)

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]."""
        stages = zip(self.predictors, student.stages, teacher.stages, strict=True)
        return torch.stack([predictor(*pool_alike(own, other)) for predictor, own, other in stages]).sum()


class MapPredictor(nn.Module):
    """
    The normal distribution q(teacher | student) of one stage.

    Args:
        in_channels (`int`): Of the student.
        out_channels (`int`): Of the teacher.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.regressor = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, kernel_size=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, kernel_size=1, bias=False),
        )
        # The inverse of softplus.
        initial = math.log(math.expm1(_INITIAL_VARIANCE - _SMALLEST_VARIANCE))
        self.log_scale = nn.Parameter(torch.full((out_channels,), initial))

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Mean negative log likelihood of maps `(batch_size, channels, height, width)` of the same size."""
        variance = (F.softplus(self.log_scale) + _SMALLEST_VARIANCE).view(-1, 1, 1)
        return 0.5 * ((self.regressor(student) - teacher).square() / variance + variance.log()).mean()
