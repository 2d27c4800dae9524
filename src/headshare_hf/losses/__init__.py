"""Losses, one per file, and the objective that adds them up."""

from .cross_entropy import cross_entropy
from .embedding import DISTANCES, embedding_loss
from .kd import kd_loss
from .objective import DistillationObjective, LossWeights, ObjectiveInputs


__all__ = [
    "DISTANCES",
    "DistillationObjective",
    "LossWeights",
    "ObjectiveInputs",
    "cross_entropy",
    "embedding_loss",
    "kd_loss",
]
