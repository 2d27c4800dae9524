"""Top-k accuracy as an `evaluate` module. One import a line, because `evaluate` reads them line by line."""

from typing import Any

import datasets
import evaluate

# The module and not the class: `evaluate` takes the first metric class in this namespace for the metric.
from headshare_hf.evaluation import counting_metric


DESCRIPTION = "Share of images whose class is among the k highest scores. A tie counts against the image."
INPUTS = """
Args:
    predictions: logits or other scores, one row of `num_labels` numbers per image.
    references: the class numbers.
Returns:
    `accuracy`, and `top{k}_accuracy` for every further k of `ks` below the number of classes; fractions in [0, 1].
    `ks`, (1, 5) by default, is given when the module is loaded: `evaluate.load(path, ks=(1, 3))`.
"""


class TopkAccuracy(counting_metric.CountingMetric):
    """
    Top-k accuracy.

    Args:
        ks (`tuple[int, ...]`, *optional*, defaults to `(1, 5)`): Which k; 1 is always among them.
        kwargs: Arguments of `evaluate.Metric`.
    """

    def __init__(self, ks: tuple[int, ...] = (1, 5), **kwargs: Any) -> None:
        super().__init__(ks=ks, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        scores = datasets.List(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=counting_metric.CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": scores, "references": datasets.Value("int64")}),
        )

    def select(self, results: dict[str, float]) -> dict[str, float]:
        """Everything but the mean over classes."""
        return {name: value for name, value in results.items() if name != "mean_per_class_accuracy"}
