"""Losses, one per file, and the objective that adds them up."""

from .cross_entropy import cross_entropy
from .embedding import DISTANCES, embedding_loss
from .kd import kd_loss
from .objective import DistillationObjective, LossWeights, ObjectiveInputs
from .scores import DenseScores, Scores


__all__ = [
    "DISTANCES",
    "DenseScores",
    "DistillationObjective",
    "LossWeights",
    "ObjectiveInputs",
    "Scores",
    "cross_entropy",
    "embedding_loss",
    "kd_loss",
]
