"""Knowledge distillation for vision models through a shared classifier (arXiv 2201.06945)."""

from .models import (
    HeadShareConfig,
    HeadShareForImageClassification,
    HeadShareImageProcessor,
    HeadShareModel,
    share_head,
)
from .trainer import DistillationConfig, DistillationTrainer, StudentHeadStages, run_student_head_kd


__version__ = "0.1.0.dev0"

__all__ = [
    "DistillationConfig",
    "DistillationTrainer",
    "HeadShareConfig",
    "HeadShareForImageClassification",
    "HeadShareImageProcessor",
    "HeadShareModel",
    "StudentHeadStages",
    "run_student_head_kd",
    "share_head",
]
