"""The trainer and what runs are made of."""

from .callbacks import HeadSimilarityCallback
from .card import describe_run
from .config import DistillationConfig
from .loading import load_classifier, load_teacher
from .meter import NonFiniteLossError
from .methods import METHODS, Method, get_method, reference_weights
from .publishing import publish_run
from .run_folder import RunFolderError, is_finished, last_checkpoint
from .runs import StudentHeadStages, run_or_reuse, run_student_head_kd
from .teacher_rows import TeacherCacheError
from .trainer import DistillationTrainer


__all__ = [
    "METHODS",
    "DistillationConfig",
    "DistillationTrainer",
    "HeadSimilarityCallback",
    "Method",
    "NonFiniteLossError",
    "RunFolderError",
    "StudentHeadStages",
    "TeacherCacheError",
    "describe_run",
    "get_method",
    "is_finished",
    "last_checkpoint",
    "load_classifier",
    "load_teacher",
    "publish_run",
    "reference_weights",
    "run_or_reuse",
    "run_student_head_kd",
]
