"""Evaluation: accuracy from running counts, metrics as `evaluate` modules, comparisons of methods and heads, plots."""

from .analysis import analyze_student
from .classification import ClassificationCounts, ClassificationMetrics, head_similarity
from .comparison_curves import plot_curves_with_bands, plot_losses_with_bands
from .comparison_plots import plot_comparison, plot_reliability, plot_similarities
from .extraction import extract_embeddings
from .face_model import FaceModel, load_face_model
from .identification import evaluate_identification, probe_rates, reduce_probes
from .ijb import IJB_FARS, IjbResult, evaluate_ijb
from .ijb_bootstrap import TemplateBootstrap
from .ijb_templates import pool_templates, score_pairs
from .loading import load_metric, metric_names
from .pair_bootstrap import bootstrap_intervals
from .paired import PairedDifference, Summary, compare_paired, summarize
from .plots import plot_accuracy_bars, plot_head_similarity, plot_training_curves
from .reliability import Calibration, calibration, pool_calibrations
from .report import render_report
from .representation import class_alignment, effective_dimension, linear_cka
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
    "Calibration",
    "ClassificationCounts",
    "ClassificationMetrics",
    "FaceModel",
    "IjbResult",
    "PairedDifference",
    "Roc",
    "Summary",
    "TemplateBootstrap",
    "VerificationOptions",
    "VerificationResult",
    "Verifier",
    "add_flipped",
    "analyze_student",
    "bootstrap_intervals",
    "calibrate_thresholds",
    "calibration",
    "class_alignment",
    "compare_paired",
    "effective_dimension",
    "evaluate_identification",
    "evaluate_ijb",
    "extract_embeddings",
    "head_similarity",
    "linear_cka",
    "load_face_model",
    "load_metric",
    "metric_names",
    "pair_similarities",
    "plot_accuracy_bars",
    "plot_comparison",
    "plot_curves_with_bands",
    "plot_det",
    "plot_head_similarity",
    "plot_losses_with_bands",
    "plot_reliability",
    "plot_roc",
    "plot_similarities",
    "plot_similarity_histogram",
    "plot_training_curves",
    "pool_calibrations",
    "pool_templates",
    "probe_rates",
    "reduce_probes",
    "render_report",
    "run_verification",
    "score_pairs",
    "store_thresholds",
    "summarize",
    "tar_key",
    "verification_metrics",
    "verify_pairs",
    "verify_similarities",
]
