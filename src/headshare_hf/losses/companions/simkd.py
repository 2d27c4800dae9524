"""SimKD: the student's last map is the teacher's, and is read by the teacher's classifier."""

from typing import cast

import torch
from torch.nn import functional as F

from .arithmetic import pool_alike
from .base import CompanionLoss
from .features import FeatureShapes, MapShape, NeededFeatures


class SimKDLoss(CompanionLoss):
    """
    Mean squared difference of the last maps (Chen et al., "Knowledge Distillation with the Reused Teacher Classifier",
    arXiv 2203.14001), the student's being what its [`MapProjector`] returns.

    The nearest relative of TH-KD at α^TH = 1: here too the student predicts with the teacher's classifier alone, but it
    learns from the teacher's features only, with neither labels nor logits, and the projector in front of the
    classifier is part of the published student. SH-KD with the head frozen in its last run ends in the same way, a
    student that predicts with its teacher's classifier, but there the teacher was made to fit: the classifier is a small
    student's, which needs no projector.

    The student's `final_map` is therefore the projected one, whose mean is its embedding. Where the sizes of the maps
    still differ, the larger one is averaged down.

    Args:
        student, teacher: See [`CompanionLoss`].

    Raises:
        ValueError: The last maps have different numbers of channels; or the teacher's last map is not what is pooled
            into its embedding, which the first batch shows.
    """

    student_needs = ("final_map",)
    teacher_needs = ("final_map", "embeddings")

    def __init__(self, student: FeatureShapes, teacher: FeatureShapes) -> None:
        super().__init__(student, teacher)
        own, other = (cast(MapShape, side.final_map)[0] for side in (student, teacher))
        if own != other:
            raise ValueError(
                f"the student's last map has {own} channels and the teacher's {other}; give the student a map projector "
                f"to {other} channels"
            )
        self._checked = False

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]."""
        self._check_once(teacher)
        return F.mse_loss(*pool_alike(student.final_map, teacher.final_map))

    def _check_once(self, teacher: NeededFeatures) -> None:
        # Reading the result waits for the device, so only the first batch is looked at.
        if not self._checked and not _is_pooled(teacher.embeddings, teacher.final_map):
            raise ValueError(
                "the mean of the teacher's last map is not its embedding, so that a classifier which is trained on the "
                "one does not read the other; take a teacher with global average pooling (resnet, wrn, vgg, ...)"
            )
        self._checked = True


def _is_pooled(embeddings: torch.Tensor, last_map: torch.Tensor) -> bool:
    pooled = last_map.mean(dim=(2, 3))
    # Loose enough for half precision.
    return pooled.shape == embeddings.shape and bool((pooled - embeddings).norm() <= 2e-2 * embeddings.norm())
