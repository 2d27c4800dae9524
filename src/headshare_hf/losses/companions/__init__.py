"""
Distillation losses that can stand beside head sharing, so that "X" and "X and head sharing" are one flag apart.

All of RepDistiller's but CRD, which has a memory and stands by itself ([`ContrastiveLoss`]); later ones on logits; and
the relatives of TH-KD, in which teacher and student share a classifier. ProxylessKD and ArcDistill are no loss but a
frozen head, the method `inherited`.
"""

from .abound import BoundaryLoss
from .adadistill import AdaDistillLoss
from .attention import AttentionLoss
from .base import CompanionLoss, PretrainedCompanionLoss
from .correlation import CorrelationLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .factor import FactorLoss
from .features import Features, FeatureShapes
from .fsp import FSPLoss
from .hint import HintLoss
from .kdmse import KDMSELoss
from .kdsvd import KDSVDLoss
from .nst import NSTLoss
from .pkt import PKTLoss
from .rkd import RKDLoss
from .similarity import SimilarityLoss
from .simkd import SimKDLoss
from .srrl import SRRLLoss
from .standardization import StandardizedKDLoss, standardize
from .table import COMPANIONS, PRETRAINING_EPOCHS, PUBLISHED_BATCH_SIZE, Companion
from .vid import VIDLoss


__all__ = [
    "COMPANIONS",
    "PRETRAINING_EPOCHS",
    "PUBLISHED_BATCH_SIZE",
    "AdaDistillLoss",
    "AttentionLoss",
    "BoundaryLoss",
    "Companion",
    "CompanionLoss",
    "CorrelationLoss",
    "DISTLoss",
    "DKDLoss",
    "FSPLoss",
    "FactorLoss",
    "FeatureShapes",
    "Features",
    "HintLoss",
    "KDMSELoss",
    "KDSVDLoss",
    "NSTLoss",
    "PKTLoss",
    "PretrainedCompanionLoss",
    "RKDLoss",
    "SRRLLoss",
    "SimKDLoss",
    "SimilarityLoss",
    "StandardizedKDLoss",
    "VIDLoss",
    "standardize",
]
