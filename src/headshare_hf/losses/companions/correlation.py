"""Correlation congruence: neighbours in the batch differ from the teacher in other places."""

import torch
from torch import nn

from .alignment import check_count
from .base import CompanionLoss
from .features import FeatureShapes, NeededFeatures


class CorrelationLoss(CompanionLoss):
    """
    Σ_d |s_i − t_i|_d · |s_{i+1} − t_{i+1}|_d, averaged over the neighbours i, i + 1 in the batch.

    This is what the authors of "Correlation Congruence for Knowledge Distillation" (Peng et al., arXiv 1904.01802) gave
    to RepDistiller, and so what its published numbers are of; the kernels of the paper's equation 6 are not in it. s
    and t are the embeddings through one linear layer each, and both layers learn.

    Args:
        student, teacher: See [`CompanionLoss`].
        size (`int`, *optional*, defaults to 128): Width that both layers lead to.

    Raises:
        ValueError: The width is below 1.
    """

    student_needs = ("embeddings",)
    teacher_needs = ("embeddings",)

    def __init__(self, student: FeatureShapes, teacher: FeatureShapes, size: int = 128) -> None:
        super().__init__(student, teacher)
        check_count(type(self).__name__, size=size)
        self.student_layer = nn.Linear(student.embedding_size, size)
        self.teacher_layer = nn.Linear(teacher.embedding_size, size)

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]; 0 for a single image."""
        return neighbour_products(self.student_layer(student.embeddings), self.teacher_layer(teacher.embeddings))


def neighbour_products(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The loss of two sets of vectors, `(batch_size, size)`; see [`CorrelationLoss`]."""
    differences = (student - teacher).abs()
    return (differences[:-1] * differences[1:]).sum() / max(len(differences) - 1, 1)
