"""The Hub: model cards, and weights of other layouts."""

from ..models.hub_cache import describe_cached
from ..models.hub_commit import CARD_FILE, TRAINING_FILE
from .card import METRICS, render_card
from .card_fields import (
    CardDataset,
    CardFields,
    CardHead,
    CardMethod,
    CardModel,
    CardResult,
    CardTeacher,
    CardTraining,
)
from .card_measured import add_results
from .card_verification import SUBJECTS, check_subject, is_pair_metric
from .card_verification_fields import CardIntervals, CardPairs, CardVerification
from .convert_centers import read_centers
from .convert_folder import ConversionOptions, convert_checkpoint
from .convert_weights import convert_backbone_state_dict, convert_state_dict
from .export import ExportRecord, export_onnx, export_program
from .export_run import ExportOptions, run_export
from .latency import LatencyEntry, LatencyTable, latency_table
from .onnx_model import OnnxModel
from .planned_card import PlannedFields, ReportedTable, render_planned_card
from .publish import Publication, publish_folder
from .publish_files import select_files
from .quantization import QuantizationRecord, quantize_onnx
from .verification_pipeline import FaceVerificationPipeline


__all__ = [
    "CARD_FILE",
    "METRICS",
    "SUBJECTS",
    "TRAINING_FILE",
    "CardDataset",
    "CardFields",
    "CardHead",
    "CardIntervals",
    "CardMethod",
    "CardModel",
    "CardPairs",
    "CardResult",
    "CardTeacher",
    "CardTraining",
    "CardVerification",
    "ConversionOptions",
    "ExportOptions",
    "ExportRecord",
    "FaceVerificationPipeline",
    "LatencyEntry",
    "LatencyTable",
    "OnnxModel",
    "PlannedFields",
    "Publication",
    "QuantizationRecord",
    "ReportedTable",
    "add_results",
    "check_subject",
    "convert_backbone_state_dict",
    "convert_checkpoint",
    "convert_state_dict",
    "describe_cached",
    "export_onnx",
    "export_program",
    "is_pair_metric",
    "latency_table",
    "publish_folder",
    "quantize_onnx",
    "read_centers",
    "render_card",
    "render_planned_card",
    "run_export",
    "select_files",
]
