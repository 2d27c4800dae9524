"""Softmax regression representation learning: the teacher's classifier judges the student's embedding."""

import torch
from torch.nn import functional as F

from ...models.heads import create_projector
from .base import CompanionLoss
from .features import FeatureShapes, NeededFeatures


class SRRLLoss(CompanionLoss):
    """
    mean (φ(z_s) − z_t)² + mean (g_t(φ(z_s)) − g_t(z_t))², the means over images and over widths or classes (Yang et
    al., "Knowledge distillation via softmax regression representation learning", ICLR 2021): embeddings z, the
    teacher's frozen classifier g_t, and a trained projector φ.

    The relative of TH-KD that compares the logits of the teacher's head themselves: TH-KD has the softened KL of the
    same two sets of logits, SRRL their squared difference, and that of the embeddings in addition. Both keep the
    student's own head for prediction. Like TH-KD with a projector, and unlike SimKD, SRRL leaves φ out of the published
    student. SH-KD goes the other way, a teacher being trained around a student's classifier; such a teacher can be the
    one here, and g_t is then that classifier.

    φ acts on the pooled embedding, as in the code of SimKD, where the weight comes from. In that of SRRL's own authors
    it acts on the last feature map, a 1×1 convolution with batch normalisation and ReLU, and the mean over the positions
    is taken afterwards: with `"linear"` both are the same, with `"linear_bn_relu"` mean and ReLU change places, and the
    normalisation has the statistics of all positions.

    Args:
        student, teacher: See [`CompanionLoss`].
        projector (`str`, *optional*, defaults to `"linear_bn_relu"`):
            φ, see [`create_projector`]. The published one ends in a ReLU; `"linear"` suits teachers whose embeddings
            have negative entries, as those of faces do.
    """

    student_needs = ("embeddings",)
    teacher_needs = ("embeddings", "logits", "head")

    def __init__(self, student: FeatureShapes, teacher: FeatureShapes, projector: str = "linear_bn_relu") -> None:
        super().__init__(student, teacher)
        self.projector = create_projector(projector, student.embedding_size, teacher.embedding_size)

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]."""
        projected = self.projector(student.embeddings)
        logits = teacher.head(projected).to(teacher.logits.dtype)
        return F.mse_loss(projected, teacher.embeddings) + F.mse_loss(logits, teacher.logits)
