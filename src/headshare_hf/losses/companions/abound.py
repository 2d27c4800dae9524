"""Activation boundaries: the student's neurons are active where the teacher's are."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import nn

from .alignment import check_positive, check_same_number, map_connector
from .base import PretrainedCompanionLoss
from .features import FeatureShapes, MapShape, NeededFeatures


# With which the published sum over all neurons of an image is multiplied.
_SCALE = 3e-3


class BoundaryLoss(PretrainedCompanionLoss):
    """
    Squared hinge loss max(0, 1 − s · sign(t))², on the side of zero that the teacher's neurons are on, before the
    activation of every stage (Heo et al., arXiv 1811.03233).

    It is the sum over all neurons of an image, averaged over the batch and multiplied by 0.003; the last stage counts
    once, each stage before it half as much as the next. Where shapes differ, the student's maps go through a connector,
    a convolution with batch normalisation.

    The published method trains the student's backbone and the connectors with this loss alone, and then the student
    without it. `forward` is the same loss, for those who want to go on with it.

    Args:
        student, teacher: See [`CompanionLoss`].
        margin (`float`, *optional*, defaults to 1.0): How far from zero a neuron has to be.

    Raises:
        ValueError: The numbers of stages differ, the margin is not positive, or as [`map_connector`].
    """

    student_needs = ("pre_activations",)
    teacher_needs = ("pre_activations",)
    pretrains_backbone = True

    def __init__(self, student: FeatureShapes, teacher: FeatureShapes, margin: float = 1.0) -> None:
        super().__init__(student, teacher)
        own, other = (cast(tuple[MapShape, ...], side.pre_activations)[1:] for side in (student, teacher))
        check_same_number(type(self).__name__, own, other)
        # At 0 a student whose neurons are all 0 would have nothing to learn.
        check_positive(type(self).__name__, margin=margin)
        self.margin = margin
        self.connectors = nn.ModuleList(_connector(*pair) for pair in zip(own, other, strict=True))

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]."""
        return self.compute_pretraining(student, teacher)

    def compute_pretraining(self, student: NeededFeatures, teacher: NeededFeatures) -> torch.Tensor:
        """See [`PretrainedCompanionLoss.compute_pretraining`]."""
        stages = zip(self.connectors, student.pre_activations[1:], teacher.pre_activations[1:], strict=True)
        hinges = [self._hinge(connector(own), other) for connector, own, other in stages]
        weights = [2.0 ** (1 + number - len(hinges)) for number in range(len(hinges))]
        return _SCALE * torch.stack([weight * hinge for weight, hinge in zip(weights, hinges, strict=True)]).sum()

    def pretraining_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the connectors."""
        return self.connectors.parameters()

    def _hinge(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        on_the_right_side = torch.where(teacher > 0, student, -student)
        return (self.margin - on_the_right_side).relu().square().sum() / len(student)


def _connector(student: MapShape, teacher: MapShape) -> nn.Module:
    return nn.Identity() if student == teacher else map_connector(student, teacher, relu=False)
