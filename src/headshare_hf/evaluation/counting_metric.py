"""The base of this package's `evaluate` modules: batches are counted when they come, and nothing of them is stored."""

from typing import Any

import evaluate
import numpy as np
import torch

from .classification import ClassificationCounts


CITATION = """\
@misc{benbaruch2022head,
  title = {It's All in the Head: Representation Knowledge Distillation through Classifier Sharing},
  author = {Ben-Baruch, Emanuel and Karklinsky, Matan and Biton, Yossi and Ben-Cohen, Avi and Lawen, Hussam and Zamir, Nadav},
  year = {2022},
  eprint = {2201.06945},
  archivePrefix = {arXiv}
}
"""


class CountingMetric(evaluate.Metric):
    """
    An `evaluate.Metric` on [`ClassificationCounts`].

    `evaluate` writes every prediction into an Arrow file and reads all of them at the end. A module derived from this
    class counts instead, so that its size depends on the number of classes alone.

    Args:
        ks (`tuple[int, ...]`): As in [`ClassificationCounts`].
        kwargs: Arguments of `evaluate.Metric`.

    Raises:
        ValueError: `num_process` is not 1; the files through which `evaluate` joins processes do not exist here.
    """

    def __init__(self, ks: tuple[int, ...], **kwargs: Any) -> None:
        if kwargs.get("num_process", 1) != 1:
            raise ValueError(
                f"`num_process` is {kwargs['num_process']}, but counts stay in their process; gather the predictions "
                "first, as `accelerate.Accelerator.gather_for_metrics` does, and load the metric with `num_process=1`"
            )
        super().__init__(**kwargs)
        self.ks = ks
        self.counts: ClassificationCounts | None = None

    def add(self, *, prediction: Any = None, reference: Any = None) -> None:
        """Counts one image; see `add_batch`."""
        if prediction is None or reference is None:
            raise ValueError(f"{self.name} needs both `prediction` and `reference`")
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions: Any = None, references: Any = None) -> None:
        """
        Counts a batch.

        Raises:
            ValueError: One of the two is missing, or [`ClassificationCounts`] refuses the batch.
        """
        if predictions is None or references is None:
            raise ValueError(f"{self.name} needs both `predictions` and `references`")
        self.count(_tensor(predictions), _tensor(references))

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float]:
        """
        Counts a last batch if one is given, and returns the result of all batches since the last call.

        Raises:
            ValueError: There was no batch.
        """
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        if self.counts is None:
            raise ValueError(f"{self.name} counted no images; call `add_batch` before, or give them to `compute`")
        results = self.select(self.counts.compute())
        self.counts = None
        return results

    def count(self, predictions: torch.Tensor, references: torch.Tensor) -> None:
        """Counts a batch of logits; modules that take something else too override this."""
        if self.counts is None:
            if predictions.ndim != 2:
                raise ValueError(
                    f"predictions of {self.name} have shape {tuple(predictions.shape)}; expected logits (N, num_labels)"
                )
            self.counts = ClassificationCounts(predictions.shape[1], self.ks)
        self.counts.update(predictions, references)

    def select(self, results: dict[str, float]) -> dict[str, float]:
        """The part of [`ClassificationCounts.compute`] that is this module's."""
        raise NotImplementedError(f"{type(self).__name__} does not implement select")


def _tensor(values: Any) -> torch.Tensor:
    """Tensors and arrays as they are; lists of numbers, of arrays or of tensors as one tensor."""
    if isinstance(values, torch.Tensor):
        return values
    if isinstance(values, list) and values and isinstance(values[0], torch.Tensor):
        return torch.stack(values)
    return torch.from_numpy(np.asarray(values))
