"""TAR at low FAR as an `evaluate` module. One import a line, because `evaluate` reads them line by line."""

from typing import Any

import datasets
import evaluate

# The modules and not the class: `evaluate` takes the first metric class in this namespace for the metric.
from headshare_hf.evaluation import batch_metric
from headshare_hf.evaluation.ijb import IJB_FARS, roc_metrics
from headshare_hf.evaluation.ijb_citations import IJBC_CITATION
from headshare_hf.evaluation.roc import Roc


DESCRIPTION = "True accept rate (TAR) of pairs at low false accept rates (FAR) by two rules, AUC and equal error rate."
INPUTS = """
Args:
    predictions: the similarity of every pair, higher for more alike.
    references: 1 or True where both are one person, 0 or False where not.
Returns:
    `tar@far=1e-6/nearest` (at the ROC point of the nearest FAR, as insightface prints it), `tar@far=1e-6/at_most` (over
    thresholds whose FAR is not above it), the same at 1e-5 ... 1e-1, `auc` and `eer`; fractions in [0, 1]. Other FARs are
    given when the module is loaded: `evaluate.load(path, fars=(1e-4,))`.
"""


class IjbVerification(batch_metric.PairMetric):
    """
    TAR at FAR, AUC and EER of pairs. Similarities are kept in memory, in their own dtype.

    Args:
        fars (`tuple[float, ...]`, *optional*, defaults to 1e-6, 1e-5, ..., 1e-1): FARs at which to read the TAR.
        kwargs: Arguments of `evaluate.Metric`.
    """

    def __init__(self, fars: tuple[float, ...] = IJB_FARS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fars = tuple(fars)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=IJBC_CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def finish(self, predictions: Any, references: Any) -> dict[str, float]:
        """The numbers of all pairs."""
        return roc_metrics(Roc.from_scores(predictions, references), self.fars)
