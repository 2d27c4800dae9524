"""Verification of pairs as an `evaluate` module. One import a line, because `evaluate` reads them line by line."""

from typing import Any

import datasets
import evaluate

# The module and not the class: `evaluate` takes the first metric class in this namespace for the metric.
from headshare_hf.evaluation import batch_metric
from headshare_hf.evaluation.verification import verify_similarities


CITATION = """\
@techreport{huang2007labeled,
  title = {Labeled Faces in the Wild: A Database for Studying Face Recognition in Unconstrained Environments},
  author = {Huang, Gary B. and Ramesh, Manu and Berg, Tamara and Learned-Miller, Erik},
  institution = {University of Massachusetts, Amherst},
  number = {07-49},
  year = {2007}
}
"""
DESCRIPTION = """\
Ten-fold accuracy of pairs, in the order of their data set; TAR at a FAR of 1e-3 and 1e-4 by two rules; AUC and EER.
"""
INPUTS = """
Args:
    predictions: cosine similarity of every pair, in [-1, 1].
    references: 1 or True where both are one person, 0 or False where not.
Returns:
    `accuracy`, `accuracy_std`, `accuracy_standard_error`, `threshold` (a cosine), `auc`, `eer`, and
    `tar@far=1e-3/nearest`, `tar@far=1e-3/at_most` and the same at 1e-4: fractions in [0, 1]. A TAR is None where there
    are fewer impostor pairs than 1 / FAR. Other FARs are given when the module is loaded:
    `evaluate.load(path, far_targets=(1e-2,))`.
"""


class Verification(batch_metric.PairMetric):
    """
    Accuracy, TAR at FAR, AUC and EER of pairs. Similarities are kept in memory, in their own dtype.

    Args:
        far_targets (`tuple[float, ...]`, *optional*, defaults to `(1e-3, 1e-4)`): At which FAR to read the TAR.
        kwargs: Arguments of `evaluate.Metric`.
    """

    unit = "pairs"
    one_process = "the folds need all pairs in their order"

    def __init__(self, far_targets: tuple[float, ...] = (1e-3, 1e-4), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.far_targets = tuple(far_targets)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def finish(self, predictions: Any, references: Any) -> dict[str, Any]:
        """The numbers of all pairs."""
        return verify_similarities(predictions, references, far_targets=self.far_targets).metrics()
