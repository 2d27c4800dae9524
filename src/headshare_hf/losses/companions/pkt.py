"""Probabilistic knowledge transfer: which images are neighbours of which."""

import torch

from .arithmetic import unit
from .base import CompanionLoss
from .features import NeededFeatures


# Of the authors' code, inside of the logarithm.
_EPSILON = 1e-7


class PKTLoss(CompanionLoss):
    """
    KL(P_t ‖ P_s), averaged over the images, of the probabilities that images are neighbours (Passalis and Tefas, arXiv
    1803.10837, with the cosine kernel).

    For each image, P is (cos + 1) / 2 with every image of the batch, itself included, divided by the sum. The widths of
    the embeddings may differ.

    The published code takes the mean over all pairs, so that its value falls as the batch grows: its weight w at batch
    size B is w / B here.

    Args:
        student, teacher: See [`CompanionLoss`].
    """

    student_needs = ("embeddings",)
    teacher_needs = ("embeddings",)

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]; 0 for a single image."""
        own, other = _neighbours(student.embeddings), _neighbours(teacher.embeddings)
        ratios = (other + _EPSILON).log() - (own + _EPSILON).log()
        return (other * ratios).sum(dim=1).mean()


def _neighbours(embeddings: torch.Tensor) -> torch.Tensor:
    directions = unit(embeddings)
    kernel = (directions @ directions.t() + 1) / 2
    return kernel / kernel.sum(dim=1, keepdim=True)
