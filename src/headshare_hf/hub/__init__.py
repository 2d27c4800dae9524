"""The Hub: model cards, and weights of other layouts."""

from .card import METRICS, render_card
from .card_fields import (
    CardDataset,
    CardFields,
    CardMethod,
    CardModel,
    CardResult,
    CardTeacher,
    CardTraining,
)
from .convert import convert_backbone_state_dict, convert_state_dict


__all__ = [
    "METRICS",
    "CardDataset",
    "CardFields",
    "CardMethod",
    "CardModel",
    "CardResult",
    "CardTeacher",
    "CardTraining",
    "convert_backbone_state_dict",
    "convert_state_dict",
    "render_card",
]
