"""Logit standardisation: only the order and the proportions of the logits are distilled, not their size."""

import math

import torch

from ..kd import kd_loss
from .alignment import check_positive, check_same_classes
from .arithmetic import unit
from .base import CompanionLoss
from .features import FeatureShapes, NeededFeatures


class StandardizedKDLoss(CompanionLoss):
    """
    [`kd_loss`] of standardised logits (Sun et al., "Logit Standardization in Knowledge Distillation", arXiv
    2403.01427).

    Each image's logits lose their mean and are divided by their standard deviation, the unbiased one as in the authors'
    code, so that the student need not reach the teacher's range of logits. It takes the place of the KL of `kd`, and can stand beside that of the teacher's
    head in TH-KD, whose logits on the student's embedding have the teacher's range anyway.

    Args:
        student, teacher: See [`CompanionLoss`].
        temperature (`float`, *optional*, defaults to 2.0): T, in standard deviations of the logits.

    Raises:
        ValueError: The numbers of classes differ, there are fewer than three, or T is not positive.
    """

    student_needs = ("logits",)
    teacher_needs = ("logits",)

    def __init__(self, student: FeatureShapes, teacher: FeatureShapes, temperature: float = 2.0) -> None:
        super().__init__(student, teacher)
        # Of two classes the scores are ±1/√2, whatever the logits.
        check_same_classes(type(self).__name__, student, teacher, least=3)
        check_positive(type(self).__name__, temperature=temperature)
        self.temperature = temperature

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]."""
        return kd_loss(standardize(student.logits), standardize(teacher.logits), self.temperature)


def standardize(logits: torch.Tensor) -> torch.Tensor:
    """
    The z-scores of each row: mean 0 and, unless all logits are equal, an unbiased variance of 1 over the classes. (The
    authors' code adds 1e-7 to the deviation, which changes nothing but its gradient where all logits are equal.)

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Scores before the softmax.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_labels)`; zeros, without gradient, where all logits are equal.
    """
    return unit(logits - logits.mean(dim=1, keepdim=True)) * math.sqrt(logits.shape[1] - 1)
