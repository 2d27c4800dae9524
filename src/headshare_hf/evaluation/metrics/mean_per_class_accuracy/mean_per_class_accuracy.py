"""Mean per-class accuracy as an `evaluate` module. One import a line, because `evaluate` reads them line by line."""

from typing import Any

import datasets
import evaluate
import torch

# The module and not the class: `evaluate` takes the first metric class in this namespace for the metric.
from headshare_hf.evaluation import counting_metric
from headshare_hf.evaluation.classification import ClassificationCounts


DESCRIPTION = "Mean of the top-1 accuracies of the classes that occur among the references."
INPUTS = """
Args:
    predictions: predicted class numbers, or logits, one row of `num_labels` numbers per image; one kind throughout.
    references: the class numbers.
Returns:
    `mean_per_class_accuracy`, a fraction in [0, 1].
"""


class MeanPerClassAccuracy(counting_metric.CountingMetric):
    """
    Mean per-class accuracy.

    Args:
        kwargs: Arguments of `evaluate.Metric`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(ks=(1,), **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("int64")
        scores = datasets.List(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=counting_metric.CITATION,
            inputs_description=INPUTS,
            features=[
                datasets.Features({"predictions": number, "references": number}),
                datasets.Features({"predictions": scores, "references": number}),
            ],
        )

    def count(self, predictions: torch.Tensor, references: torch.Tensor) -> None:
        """Counts a batch of class numbers, of which there may be more than in the batches before, or of logits."""
        if predictions.ndim != 1:
            super().count(predictions, references)
            return
        highest = int(max([-1, *predictions.tolist(), *references.flatten().tolist()]))
        if self.counts is None:
            self.counts = ClassificationCounts(max(1, highest + 1), self.ks)
        self.counts.grow(max(self.counts.num_labels, highest + 1))
        self.counts.update_classes(predictions, references)

    def select(self, results: dict[str, float]) -> dict[str, float]:
        """The mean over classes alone."""
        return {"mean_per_class_accuracy": results["mean_per_class_accuracy"]}
