"""Hints: the student's map of one stage, through a regressor, is the teacher's."""

import torch
from torch import nn
from torch.nn import functional as F

from .alignment import map_connector
from .base import CompanionLoss
from .features import FeatureShapes, NeededFeatures


class HintLoss(CompanionLoss):
    r"""
    Mean squared difference of the maps of one stage, the student's through a trained regressor (Romero et al.,
    "FitNets", arXiv 1412.6550, equation 3, without the stage of training of its own).

    RepDistiller and the authors of HeadSharingKD always have the regressor, a convolution with batch normalisation and
    ReLU, also where both maps have the same shape.

    Args:
        student, teacher: See [`CompanionLoss`].
        stage (`int`, *optional*, defaults to 2): Which map; 0 is the stem.
        regressor (`bool`, *optional*, defaults to `True`):
            `False` compares the maps as they are, which must then have the same shape.

    Raises:
        ValueError: A network has no such stage, the shapes differ without a regressor, or as [`map_connector`].
    """

    student_needs = ("hidden_states",)
    teacher_needs = ("hidden_states",)

    def __init__(self, student: FeatureShapes, teacher: FeatureShapes, stage: int = 2, regressor: bool = True) -> None:
        super().__init__(student, teacher)
        fewest = min(len(student.maps), len(teacher.maps))
        if type(stage) is not int or not 0 <= stage < fewest:
            raise ValueError(
                f"`stage` is {stage!r}, but student and teacher have the maps 0 to {fewest - 1} in common"
            )
        shapes = student.maps[stage], teacher.maps[stage]
        if not regressor and shapes[0] != shapes[1]:
            raise ValueError(
                f"the maps of stage {stage} have the shapes {shapes[0]} and {shapes[1]}; set `regressor=True`"
            )
        self.stage = stage
        self.regressor: nn.Module = map_connector(*shapes, relu=True) if regressor else nn.Identity()

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]."""
        return F.mse_loss(self.regressor(student.hidden_states[self.stage]), teacher.hidden_states[self.stage])
