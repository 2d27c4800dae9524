"""
Distillation losses that can stand beside head sharing, so that "X" and "X and head sharing" are one flag apart.

All of RepDistiller's but CRD, which has a memory and stands by itself ([`ContrastiveLoss`]); later ones on logits; and
the relatives of TH-KD and SH-KD, in which teacher and student share a classifier.

Three relatives are no loss but a frozen head, the method `inherited`: the student is trained on labels through a copy of
the teacher's classifier, TH-KD's limit α^TH = 1 without its KL. They are ProxylessKD (Shi et al., arXiv 2011.00265);
ArcDistill, which is how AdaDistill (Boutros, Štruc and Damer, arXiv 2407.01332) calls it with the margin of ArcFace; and
MarginDistillation (Svitov and Alyamkin, arXiv 2003.02586), whose margins, however, follow the teacher's angles image by
image, while that of `inherited` is the same for all. In SH-KD it is the teacher that inherits, from a small student.
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
