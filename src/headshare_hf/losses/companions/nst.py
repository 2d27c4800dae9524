"""Neuron selectivity transfer: the channels respond to the same places."""

import torch

from .alignment import check_positions, check_same_number
from .arithmetic import pool_alike, unit
from .base import CompanionLoss
from .features import FeatureShapes, NeededFeatures


class NSTLoss(CompanionLoss):
    """
    Squared maximum mean discrepancy of the channels of both maps with the kernel (x · y)², averaged over the images and
    added up over the stages (Huang and Wang, "Like What You Like", arXiv 1707.01219, with their polynomial
    kernel).

    A channel is the vector of its responses at all positions, scaled to length 1. The numbers of channels may differ;
    where the sizes of a stage differ, the larger map is averaged down first.

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
        return torch.stack([_discrepancy(*(unit(each.flatten(2)) for each in pair)) for pair in pairs]).sum()


def _discrepancy(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Of unit vectors `(batch_size, channels, positions)`."""
    return _kernel(student, student) + _kernel(teacher, teacher) - 2 * _kernel(student, teacher)


def _kernel(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first @ second.transpose(1, 2)).square().mean()
