"""DIST: predictions that correlate with the teacher's, over the classes and over the images."""

import torch

from .alignment import check_positive, check_same_classes, check_weights
from .arithmetic import unit
from .base import CompanionLoss
from .features import FeatureShapes, NeededFeatures


class DISTLoss(CompanionLoss):
    """
    T² (β (1 − r over the classes) + γ (1 − r over the images)) with Pearson's correlation r of the softened
    probabilities of student and teacher (Huang et al., "Knowledge Distillation from A Stronger Teacher", arXiv
    2205.10536).

    The first is taken of each image's probabilities, and averaged over the images; the second of the probabilities of
    each class throughout the batch, and averaged over the classes. Of two classes the first says only which one is
    larger, so that the second alone teaches. The factor T² is that of the authors' code.

    Args:
        student, teacher: See [`CompanionLoss`].
        inter_weight (`float`, *optional*, defaults to 1.0): β, of the relation between classes.
        intra_weight (`float`, *optional*, defaults to 1.0): γ, of the relation within a class.
        temperature (`float`, *optional*, defaults to 4.0): T, unitless.

    Raises:
        ValueError: The numbers of classes differ, T is not positive, a weight is negative, or both are 0.
    """

    student_needs = ("logits",)
    teacher_needs = ("logits",)

    def __init__(
        self,
        student: FeatureShapes,
        teacher: FeatureShapes,
        inter_weight: float = 1.0,
        intra_weight: float = 1.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(student, teacher)
        check_same_classes(type(self).__name__, student, teacher)
        check_positive(type(self).__name__, temperature=temperature)
        check_weights(type(self).__name__, inter_weight=inter_weight, intra_weight=intra_weight)
        self.inter_weight = inter_weight
        self.intra_weight = intra_weight
        self.temperature = temperature

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]; of a single image the second part is the constant γ T²."""
        own, other = ((side.logits / self.temperature).softmax(dim=1) for side in (student, teacher))
        inter, intra = (1 - _correlation(own, other, dim).mean() for dim in (1, 0))
        return self.temperature**2 * (self.inter_weight * inter + self.intra_weight * intra)


def _correlation(first: torch.Tensor, second: torch.Tensor, dim: int) -> torch.Tensor:
    """Pearson's r along `dim`; 0 where either is constant."""
    centred = (unit(each - each.mean(dim=dim, keepdim=True), dim) for each in (first, second))
    return torch.linalg.vecdot(*centred, dim=dim)
