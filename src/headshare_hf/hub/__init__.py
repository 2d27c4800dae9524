"""The Hub: model cards, and weights of other layouts."""

from .card import METRICS, render_card
from .card_fields import (
    CardDataset,
    CardFields,
    CardHead,
    CardMethod,
    CardModel,
    CardPairs,
    CardResult,
    CardTeacher,
    CardTraining,
    CardVerification,
)
from .card_verification import SUBJECTS, check_subject, is_pair_metric
from .convert import convert_backbone_state_dict, convert_state_dict
from .planned_card import PlannedFields, ReportedTable, render_planned_card
from .verification_pipeline import FaceVerificationPipeline


__all__ = [
    "METRICS",
    "SUBJECTS",
    "CardDataset",
    "CardFields",
    "CardHead",
    "CardMethod",
    "CardModel",
    "CardPairs",
    "CardResult",
    "CardTeacher",
    "CardTraining",
    "CardVerification",
    "FaceVerificationPipeline",
    "PlannedFields",
    "ReportedTable",
    "check_subject",
    "convert_backbone_state_dict",
    "convert_state_dict",
    "is_pair_metric",
    "render_card",
    "render_planned_card",
]
