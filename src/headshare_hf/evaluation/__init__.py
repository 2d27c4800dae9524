"""Evaluation: accuracy from running counts, metrics as `evaluate` modules, head similarity, plots."""

from .classification import ClassificationCounts, ClassificationMetrics, head_similarity
from .loading import load_metric, metric_names
from .plots import plot_accuracy_bars, plot_head_similarity, plot_training_curves


__all__ = [
    "ClassificationCounts",
    "ClassificationMetrics",
    "head_similarity",
    "load_metric",
    "metric_names",
    "plot_accuracy_bars",
    "plot_head_similarity",
    "plot_training_curves",
]
