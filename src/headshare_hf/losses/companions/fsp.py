"""Flow of the solution procedure: how the maps of one stage follow from those of the one before."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from .alignment import check_same_channels
from .arithmetic import pool_alike
from .base import PretrainedCompanionLoss
from .features import FeatureShapes, NeededFeatures


class FSPLoss(PretrainedCompanionLoss):
    """
    Mean squared difference of the FSP matrices, added up over the pairs of neighbouring maps, the stem's included (Yim
    et al., CVPR 2017, "A Gift from Knowledge Distillation", equations 1 and 2).

    An FSP matrix is the mean product, over the positions, of every channel of one map with every channel of the next,
    the larger of the two being averaged down first.

    The published method trains the student's backbone with this loss alone, and then the student without it. `forward`
    is the same loss, for those who want to go on with it. There are no parameters.

    Args:
        student, teacher: See [`CompanionLoss`].

    Raises:
        ValueError: The numbers of maps or of their channels differ.
    """

    student_needs = ("hidden_states",)
    teacher_needs = ("hidden_states",)
    pretrains_backbone = True

    def __init__(self, student: FeatureShapes, teacher: FeatureShapes) -> None:
        super().__init__(student, teacher)
        check_same_channels(type(self).__name__, student.maps, teacher.maps, least=2)

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]."""
        return self.compute_pretraining(student, teacher)

    def compute_pretraining(self, student: NeededFeatures, teacher: NeededFeatures) -> torch.Tensor:
        """See [`PretrainedCompanionLoss.compute_pretraining`]."""
        flows = zip(_flows(student.hidden_states), _flows(teacher.hidden_states), strict=True)
        return torch.stack([F.mse_loss(own, other) for own, other in flows]).sum()

    def pretraining_parameters(self) -> Iterator[nn.Parameter]:
        """None."""
        return self.parameters()


def _flows(maps: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return [_flow(*pool_alike(*pair)) for pair in zip(maps[:-1], maps[1:], strict=True)]


def _flow(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """The FSP matrix, `(batch_size, channels after, channels before)`."""
    return after.flatten(2) @ before.flatten(2).transpose(1, 2) / before[0, 0].numel()
