"""Evaluation: accuracy from running counts, metrics as `evaluate` modules, head similarity, plots."""

from .classification import ClassificationCounts, ClassificationMetrics, head_similarity
from .extraction import extract_embeddings
from .face_model import FaceModel, load_face_model
from .identification import evaluate_identification, probe_rates, reduce_probes
from .ijb import IJB_FARS, IjbResult, evaluate_ijb
from .ijb_bootstrap import TemplateBootstrap
from .ijb_templates import pool_templates, score_pairs
from .loading import load_metric, metric_names
from .pair_bootstrap import bootstrap_intervals
from .plots import plot_accuracy_bars, plot_head_similarity, plot_training_curves
from .report import render_report
from .roc import FAR_RULES, Roc
from .run import run_verification
from .run_options import VerificationOptions
from .thresholds import calibrate_thresholds, store_thresholds
from .verification import (
    VerificationResult,
    add_flipped,
    pair_similarities,
    tar_key,
    verify_pairs,
    verify_similarities,
)
from .verification_plots import plot_det, plot_roc, plot_similarity_histogram
from .verifier import Verifier, verification_metrics


__all__ = [
    "FAR_RULES",
    "IJB_FARS",
    "ClassificationCounts",
    "ClassificationMetrics",
    "FaceModel",
    "IjbResult",
    "Roc",
    "TemplateBootstrap",
    "VerificationOptions",
    "VerificationResult",
    "Verifier",
    "add_flipped",
    "bootstrap_intervals",
    "calibrate_thresholds",
    "evaluate_identification",
    "evaluate_ijb",
    "extract_embeddings",
    "head_similarity",
    "load_face_model",
    "load_metric",
    "metric_names",
    "pair_similarities",
    "plot_accuracy_bars",
    "plot_det",
    "plot_head_similarity",
    "plot_roc",
    "plot_similarity_histogram",
    "plot_training_curves",
    "pool_templates",
    "probe_rates",
    "reduce_probes",
    "render_report",
    "run_verification",
    "score_pairs",
    "store_thresholds",
    "tar_key",
    "verification_metrics",
    "verify_pairs",
    "verify_similarities",
]
