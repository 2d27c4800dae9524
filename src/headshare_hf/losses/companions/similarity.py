"""Similarity-preserving distillation: images that are alike to the teacher are alike to the student."""

import torch

from .arithmetic import unit
from .base import CompanionLoss
from .features import NeededFeatures


class SimilarityLoss(CompanionLoss):
    r"""
    ‖Ĝ_s − Ĝ_t‖² per row, averaged over the rows (Tung and Mori, arXiv 1907.09682, equations 1 to 3).

    G = A Aᵀ holds the products of the flattened last maps A of all pairs of images in the batch, and its rows are
    scaled to length 1. Maps of any shape can be compared.

    The published loss is divided by the square of the batch size, and its rows have length 1 however many images there
    are, so that it falls as the batch grows: their weight w at batch size B is w / B here.

    Args:
        student, teacher: See [`CompanionLoss`].
    """

    student_needs = ("hidden_states",)
    teacher_needs = ("hidden_states",)

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]."""
        own, other = (_similarities(side.hidden_states[-1].flatten(1)) for side in (student, teacher))
        return (own - other).square().sum(dim=1).mean()


def _similarities(activations: torch.Tensor) -> torch.Tensor:
    return unit(activations @ activations.t())
