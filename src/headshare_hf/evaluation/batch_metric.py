"""The base of `evaluate` modules that need the numbers of all batches at the end, and keep them in memory."""

from typing import Any

import evaluate
import numpy as np

from .arrays import to_array


class BatchMetric(evaluate.Metric):
    """
    An `evaluate.Metric` that keeps two arrays of every batch and joins them in the end.

    `evaluate` writes every prediction into an Arrow file and reads all of them at the end; with millions of pairs that
    takes longer than the metric.

    Args:
        kwargs: Arguments of `evaluate.Metric`.

    Attributes:
        unit (`str`): What a batch consists of, for messages.
        one_process (`str`): Why there can be only one process, likewise.

    Raises:
        ValueError: `num_process` is not 1; the files through which `evaluate` joins processes do not exist here.
    """

    unit = "batches"
    one_process = "batches stay in their process"

    def __init__(self, **kwargs: Any) -> None:
        if kwargs.get("num_process", 1) != 1:
            raise ValueError(
                f"`num_process` is {kwargs['num_process']}, but {self.one_process}; gather the predictions first, as "
                "`accelerate.Accelerator.gather_for_metrics` does, and load the metric with `num_process=1`"
            )
        super().__init__(**kwargs)
        self.batches: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, *, prediction: Any = None, reference: Any = None) -> None:
        """Adds one prediction; see `add_batch`."""
        if prediction is None or reference is None:
            raise ValueError(f"{self.name} needs both `prediction` and `reference`")
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions: Any = None, references: Any = None) -> None:
        """
        Adds a batch.

        Raises:
            ValueError: One of the two is missing, or the module refuses the batch.
        """
        if predictions is None or references is None:
            raise ValueError(f"{self.name} needs both `predictions` and `references`")
        self.batches.append(self.reduce(predictions, references))

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, Any]:
        """
        Adds a last batch if one is given, and returns the result of all batches since the last call.

        Raises:
            ValueError: There was no batch, or there is no result for these numbers.
        """
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        if not self.batches:
            raise ValueError(f"{self.name} has no {self.unit}; call `add_batch` before, or give them to `compute`")
        first, second = (np.concatenate(arrays) for arrays in zip(*self.batches, strict=True))
        self.batches = []
        return self.finish(first, second)

    def reduce(self, predictions: Any, references: Any) -> tuple[np.ndarray, np.ndarray]:
        """What is kept of a batch: two arrays with a number for each prediction."""
        raise NotImplementedError(f"{type(self).__name__} does not implement reduce")

    def finish(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, Any]:
        """The result, from the arrays of all batches."""
        raise NotImplementedError(f"{type(self).__name__} does not implement finish")


class PairMetric(BatchMetric):
    """A [`BatchMetric`] of the similarities of pairs, with labels 1 for one person and 0 for two."""

    def reduce(self, predictions: Any, references: Any) -> tuple[np.ndarray, np.ndarray]:
        """Checks a batch of pairs."""
        scores, labels = to_array(predictions), to_array(references)
        if scores.ndim != 1 or labels.shape != scores.shape:
            raise ValueError(
                f"{self.name} needs one similarity and one label for each pair; there are predictions of shape "
                f"{scores.shape} and references of shape {labels.shape}"
            )
        if not np.isin(labels, (0, 1)).all():
            raise ValueError(f"references of {self.name} are 1 for one person and 0 for two; there are others")
        return scores, labels == 1
