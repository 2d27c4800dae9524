"""Decoupled distillation: the class of the label, and how the other classes compare with each other."""

import torch
from torch.nn import functional as F

from ...models import IGNORED_LABEL
from .alignment import check_positive, check_same_classes, check_weights
from .base import CompanionLoss
from .features import FeatureShapes, NeededFeatures


class DKDLoss(CompanionLoss):
    r"""
    T² (α · TCKD + β · NCKD), averaged over the images (Zhao et al., "Decoupled Knowledge Distillation", arXiv
    2203.08679).

    With p = softmax(logits / T) and the label y, TCKD = KL of (p_y, 1 − p_y), and NCKD = KL of the other classes'
    p_j / (1 − p_y); each from the teacher's to the student's. [`kd_loss`] is TCKD + (1 − p_y) NCKD with the teacher's
    p_y, which silences the other classes exactly where the teacher is sure.

    The published recipe lets the weight grow linearly over the first 20 epochs; that is not part of the loss.

    Args:
        student, teacher: See [`CompanionLoss`].
        target_weight (`float`, *optional*, defaults to 1.0): α.
        others_weight (`float`, *optional*, defaults to 8.0):
            β. The published values depend on the pair of networks: 2, 6 or 8 for CIFAR-100, see
            examples/configs/compare/cifar100, and 0.5 or 2 for ImageNet.
        temperature (`float`, *optional*, defaults to 4.0): T, unitless.

    Raises:
        ValueError: There are fewer than two classes, or not as many of the student as of the teacher, T is not positive, a
            weight is negative, or both are 0.
    """

    student_needs = ("logits",)
    teacher_needs = ("logits",)
    needs_labels = True

    def __init__(
        self,
        student: FeatureShapes,
        teacher: FeatureShapes,
        target_weight: float = 1.0,
        others_weight: float = 8.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(student, teacher)
        check_same_classes(type(self).__name__, student, teacher, least=2)
        check_positive(type(self).__name__, temperature=temperature)
        check_weights(type(self).__name__, target_weight=target_weight, others_weight=others_weight)
        self.target_weight = target_weight
        self.others_weight = others_weight
        self.temperature = temperature

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]; images labelled -1 are left out, and 0 is what no label at all gives."""
        counted = labels != IGNORED_LABEL
        label = labels.clamp(min=0).unsqueeze(1)
        own, other = (_decoupled(side.logits / self.temperature, label) for side in (student, teacher))
        target, others = (_divergence(*pair) for pair in zip(own, other, strict=True))
        losses = (self.target_weight * target + self.others_weight * others) * counted
        return self.temperature**2 * losses.sum() / counted.sum().clamp(min=1)


def _decoupled(logits: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Logarithms of (p_y, 1 − p_y), `(batch_size, 2)`, and of the other classes' shares of 1 − p_y,
    `(batch_size, num_labels)`, with 0 at the label.
    """
    others = logits.scatter(1, label, -torch.inf)
    total = others.logsumexp(dim=1, keepdim=True)
    binary = F.log_softmax(torch.cat([logits.gather(1, label), total], dim=1), dim=1)
    return binary, (others - total).scatter(1, label, 0.0)


def _divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL per image, of logarithms of probabilities; a class where both are 0 adds nothing."""
    return (teacher.exp() * (teacher - student)).sum(dim=1)
