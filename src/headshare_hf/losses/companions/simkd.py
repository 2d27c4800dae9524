"""SimKD: the student's last map is the teacher's, and is read by the teacher's classifier."""

import torch
from torch.nn import functional as F

from .arithmetic import pool_alike
from .base import CompanionLoss
from .features import FeatureShapes, NeededFeatures


class SimKDLoss(CompanionLoss):
    """
    Mean squared difference of the last maps (Chen et al., "Knowledge Distillation with the Reused Teacher Classifier",
    arXiv 2203.14001), the student's being what its [`MapProjector`] returns.

    The nearest relative of TH-KD at α^TH = 1: here too the student predicts with the teacher's classifier alone, but it
    learns from the teacher's features only, with neither labels nor logits, and the projector in front of the
    classifier is part of the published student.

    The student therefore ends its `hidden_states` with the projected map and pools that into its embedding. Where the
    sizes of the maps still differ, the larger one is averaged down.

    Args:
        student, teacher: See [`CompanionLoss`].

    Raises:
        ValueError: The last maps have different numbers of channels; or the teacher's last map is not what is pooled
            into its embedding, which the first batch shows.
    """

    student_needs = ("hidden_states",)
    teacher_needs = ("hidden_states", "embeddings")

    def __init__(self, student: FeatureShapes, teacher: FeatureShapes) -> None:
        super().__init__(student, teacher)
        own, other = student.maps[-1][0], teacher.maps[-1][0]
        if own != other:
            raise ValueError(
                f"the student's last map has {own} channels and the teacher's {other}; give the student a map projector "
                f"to {other} channels"
            )
        self._checked = False

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]."""
        self._check_once(teacher)
        return F.mse_loss(*pool_alike(student.hidden_states[-1], teacher.hidden_states[-1]))

    def _check_once(self, teacher: NeededFeatures) -> None:
        # Reading the result waits for the device, so only the first batch is looked at.
        if not self._checked and not _is_pooled(teacher.embeddings, teacher.hidden_states[-1]):
            raise ValueError(
                "the mean of the teacher's last map is not its embedding, so that a classifier which is trained on the "
                "one does not read the other; take a teacher with global average pooling (resnet, wrn, vgg)"
            )
        self._checked = True


def _is_pooled(embeddings: torch.Tensor, last_map: torch.Tensor) -> bool:
    pooled = last_map.mean(dim=(2, 3))
    # Loose enough for half precision.
    return pooled.shape == embeddings.shape and bool((pooled - embeddings).norm() <= 2e-2 * embeddings.norm())
