"""Losses, one per file, and the objective that adds them up."""

from .chunked_cross_entropy import chunked_cross_entropy
from .chunked_kd import chunked_kd
from .class_matrix import CHUNKED_FROM
from .companions import COMPANIONS, Companion, CompanionLoss, Features, FeatureShapes, PretrainedCompanionLoss
from .contrastive import ContrastiveLoss
from .cross_entropy import cross_entropy
from .embedding import DISTANCES, embedding_loss
from .kd import kd_loss
from .liger import LigerScores, liger_loss
from .negatives import NEGATIVES, Contrast, NegativeSampler
from .objective import DistillationObjective, LossWeights, ObjectiveInputs
from .scores import ChunkedScores, DenseScores, MomentScores, Sampling, Scores, ShardedScores
from .sharded import sharded_cross_entropy, sharded_kd
from .teacher_moments import TeacherMoments, moments_kd, teacher_moments


__all__ = [
    "CHUNKED_FROM",
    "COMPANIONS",
    "DISTANCES",
    "NEGATIVES",
    "ChunkedScores",
    "Companion",
    "CompanionLoss",
    "Contrast",
    "ContrastiveLoss",
    "DenseScores",
    "DistillationObjective",
    "FeatureShapes",
    "Features",
    "LigerScores",
    "LossWeights",
    "MomentScores",
    "NegativeSampler",
    "ObjectiveInputs",
    "PretrainedCompanionLoss",
    "Sampling",
    "Scores",
    "ShardedScores",
    "TeacherMoments",
    "chunked_cross_entropy",
    "chunked_kd",
    "cross_entropy",
    "embedding_loss",
    "kd_loss",
    "liger_loss",
    "moments_kd",
    "sharded_cross_entropy",
    "sharded_kd",
    "teacher_moments",
]
