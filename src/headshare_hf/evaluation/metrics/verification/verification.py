"""Verification of pairs as an `evaluate` module. One import a line, because `evaluate` reads them line by line."""

from typing import Any

import datasets
import evaluate
import numpy as np

from headshare_hf.evaluation.verification import to_array, verify_similarities


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


class Verification(evaluate.Metric):
    """
    Accuracy, TAR at FAR, AUC and EER of pairs. Similarities are kept in memory, eight bytes a pair.

    Args:
        far_targets (`tuple[float, ...]`, *optional*, defaults to `(1e-3, 1e-4)`): At which FAR to read the TAR.
        kwargs: Arguments of `evaluate.Metric`.

    Raises:
        ValueError: `num_process` is not 1; the folds need all pairs in their order.
    """

    def __init__(self, far_targets: tuple[float, ...] = (1e-3, 1e-4), **kwargs: Any) -> None:
        if kwargs.get("num_process", 1) != 1:
            raise ValueError(
                f"`num_process` is {kwargs['num_process']}, but the folds need all pairs in their order; gather them "
                "first, as `accelerate.Accelerator.gather_for_metrics` does, and load the metric with `num_process=1`"
            )
        super().__init__(**kwargs)
        self.far_targets = tuple(far_targets)
        self._similarities: list[np.ndarray] = []
        self._is_same: list[np.ndarray] = []

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def add(self, *, prediction: Any = None, reference: Any = None) -> None:
        """Adds one pair; see `add_batch`."""
        if prediction is None or reference is None:
            raise ValueError(f"{self.name} needs both `prediction` and `reference`")
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions: Any = None, references: Any = None) -> None:
        """
        Adds pairs.

        Raises:
            ValueError: One of the two is missing, the lengths differ, or a reference is neither 0 nor 1.
        """
        if predictions is None or references is None:
            raise ValueError(f"{self.name} needs both `predictions` and `references`")
        similarities = to_array(predictions).astype(np.float64)
        labels = to_array(references)
        if similarities.ndim != 1 or labels.shape != similarities.shape:
            raise ValueError(
                f"{self.name} needs one similarity and one label for each pair; there are predictions of shape "
                f"{similarities.shape} and references of shape {labels.shape}"
            )
        if not np.isin(labels, (0, 1)).all():
            raise ValueError(f"references of {self.name} are 1 for one person and 0 for two; there are others")
        self._similarities.append(similarities)
        self._is_same.append(labels == 1)

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float | None]:
        """
        Adds a last batch if one is given, and returns the result of all pairs since the last call.

        Raises:
            ValueError: There was no batch, or `verify_similarities` refuses the pairs.
        """
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        if not self._similarities:
            raise ValueError(f"{self.name} has no pairs; call `add_batch` before, or give them to `compute`")
        similarities, is_same = np.concatenate(self._similarities), np.concatenate(self._is_same)
        self._similarities, self._is_same = [], []
        return verify_similarities(similarities, is_same, far_targets=self.far_targets).metrics()
