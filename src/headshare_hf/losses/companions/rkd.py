"""Relational distillation: distances and angles between embeddings."""

import torch
from torch.nn import functional as F

from .alignment import check_weights
from .arithmetic import unit
from .base import CompanionLoss
from .features import FeatureShapes, NeededFeatures


class RKDLoss(CompanionLoss):
    """
    25 times the distance loss and 50 times the angle loss of "Relational Knowledge Distillation" (Park et al., arXiv
    1904.05068): the Huber loss of ‖z_i − z_j‖ / mean, and of cos ∠ z_i z_j z_k.

    Distances between the embeddings of the batch are divided by their mean over all pairs of different images. Angles
    are the cosines at every image between the directions to two others. Both are averaged over all pairs or triples of
    the batch, those with equal members included, as in RepDistiller. The widths of the embeddings may differ.

    The cosines are `batch_size` cubed, and the directions `batch_size` squared times the width.

    Args:
        student, teacher: See [`CompanionLoss`].
        distance_weight (`float`, *optional*, defaults to 25.0): Weight of the distances.
        angle_weight (`float`, *optional*, defaults to 50.0): Weight of the angles.

    Raises:
        ValueError: A weight is negative, or both are 0.
    """

    student_needs = ("embeddings",)
    teacher_needs = ("embeddings",)

    def __init__(
        self,
        student: FeatureShapes,
        teacher: FeatureShapes,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
    ) -> None:
        super().__init__(student, teacher)
        check_weights(type(self).__name__, distance_weight=distance_weight, angle_weight=angle_weight)
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]; 0 for a single image."""
        own, other = _relations(student.embeddings), _relations(teacher.embeddings)
        distance, angle = (F.smooth_l1_loss(*pair) for pair in zip(own, other, strict=True))
        return self.distance_weight * distance + self.angle_weight * angle


def _relations(embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances `(batch_size, batch_size)` in units of their mean, and cosines of angles, one more `batch_size`."""
    # From differences, not from products: those leave nothing of the distance of two images that are nearly the same.
    differences = embeddings.unsqueeze(0) - embeddings.unsqueeze(1)
    distances = torch.linalg.vector_norm(differences, dim=2)
    mean = distances.sum() / max(len(embeddings) * (len(embeddings) - 1), 1)
    directions = unit(differences, dim=2)
    scaled = distances / mean.clamp(min=torch.finfo(mean.dtype).tiny)
    return scaled, directions @ directions.transpose(1, 2)
