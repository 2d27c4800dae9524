"""Search in a gallery as an `evaluate` module. One import a line, because `evaluate` reads them line by line."""

from typing import Any

import datasets
import evaluate

# The modules and not the class: `evaluate` takes the first metric class in this namespace for the metric.
from headshare_hf.evaluation import batch_metric
from headshare_hf.evaluation.identification import FPIRS, RANKS, probe_rates, reduce_probes
from headshare_hf.evaluation.ijb_citations import IJBC_CITATION


DESCRIPTION = "Rank-k identification rate (closed set) and TPIR at FPIR (open set) of searches in one gallery."
INPUTS = """
Args:
    predictions: similarities of a probe to all entries of the gallery, a row a probe.
    references: the entry of the probe's person in the gallery, -1 for a person who is not in it.
Returns:
    `rank1`, `rank5`, `rank10`: share of the probes with a person in the gallery whose entry is among the k highest (a tie
    counts against the probe). `tpir@fpir=0.01`, `tpir@fpir=0.1`: share of them whose entry is highest and above a threshold
    that at most this share of the other probes reaches. Others are given when the module is loaded:
    `evaluate.load(path, ranks=(1,), fpirs=())`.
"""


class IjbIdentification(batch_metric.BatchMetric):
    """
    Rates of searches in a gallery. Two numbers a probe are kept in memory.

    Args:
        ranks (`tuple[int, ...]`, *optional*, defaults to 1, 5 and 10): Which ranks.
        fpirs (`tuple[float, ...]`, *optional*, defaults to 0.01 and 0.1): Which FPIRs; none if every person is in it.
        kwargs: Arguments of `evaluate.Metric`.
    """

    def __init__(self, ranks: tuple[int, ...] = RANKS, fpirs: tuple[float, ...] = FPIRS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ranks, self.fpirs = tuple(ranks), tuple(fpirs)

    def _info(self) -> evaluate.MetricInfo:
        scores = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=IJBC_CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": scores, "references": datasets.Value("int64")}),
        )

    def reduce(self, predictions: Any, references: Any) -> tuple[Any, Any]:
        """Score and rank of every probe."""
        return reduce_probes(predictions, references)

    def finish(self, predictions: Any, references: Any) -> dict[str, float]:
        """The rates of all probes."""
        return probe_rates(predictions, references, self.ranks, self.fpirs)
