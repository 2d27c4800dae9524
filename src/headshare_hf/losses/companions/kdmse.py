"""Squared difference of the probabilities."""

import torch
from torch.nn import functional as F

from .alignment import check_same_classes
from .base import CompanionLoss
from .features import FeatureShapes, NeededFeatures


class KDMSELoss(CompanionLoss):
    """
    Mean over images and classes of (softmax(student) − softmax(teacher))², without temperature: `kdmse` of the authors
    of HeadSharingKD. Unlike [`kd_loss`] it is divided by the number of classes too.

    Args:
        student, teacher: See [`CompanionLoss`].

    Raises:
        ValueError: The numbers of classes differ.
    """

    student_needs = ("logits",)
    teacher_needs = ("logits",)

    def __init__(self, student: FeatureShapes, teacher: FeatureShapes) -> None:
        super().__init__(student, teacher)
        check_same_classes(type(self).__name__, student, teacher)

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]."""
        return F.mse_loss(student.logits.softmax(dim=1), teacher.logits.softmax(dim=1))
