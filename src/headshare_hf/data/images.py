"""The one form in which the data set of a training loop sees its images, wherever they come from."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import datasets
import numpy as np

from .record_images import RecordImages


LabeledSplit: TypeAlias = datasets.Dataset | RecordImages


class LabeledImages(Protocol):
    """
    Encoded images of one split and their classes.

    Attributes:
        split (`str`): Name of the split.
        labels (`np.ndarray` of `int64` and shape `(num_images,)`): Class of every image.
        label_names (`list[str]`): Name of every class.
        fingerprint (`str`): Differs where there are other images, as far as that shows without reading them.
    """

    split: str
    labels: np.ndarray
    label_names: list[str]

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def select(self, rows: Sequence[int] | np.ndarray) -> "LabeledImages":
        """The images at these positions, in this order."""
        ...

    def number(self, row: int) -> int:
        """Number of an image in the split that it was chosen from."""
        ...

    def entries(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """`{"bytes": ..., "path": ...}` for each of these positions; there are no bytes where `path` is a file."""
        ...


class DatasetImages:
    """
    [`LabeledImages`] in columns of a `datasets.Dataset`.

    Args:
        dataset (`datasets.Dataset`): With the columns of [`load_splits`], of which `row` may be missing.

    Raises:
        ValueError: The columns do not fit, or an image has no label.
    """

    def __init__(self, dataset: datasets.Dataset) -> None:
        _check_columns(dataset)
        self._dataset = dataset.with_format(None).cast_column("image", datasets.Image(decode=False))
        self._images = self._dataset.select_columns(["image"])
        self.split = str(dataset.split)
        labels = self._dataset["label"][:]
        if None in labels:
            raise ValueError(
                f"image {labels.index(None)} of split {self.split} has no label ({labels.count(None)} have none); leave them out "
                "with `dataset.filter`, or give them the label -1, with which images are trained on without it"
            )
        self.labels = np.array(labels, dtype=np.int64)
        self.label_names = list(dataset.features["label"].names)
        rows = self._dataset["row"][:] if "row" in dataset.column_names else range(len(dataset))
        self._numbers = np.array(rows, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """That of `datasets`, over the source and what was done to it."""
        return self._dataset._fingerprint

    def select(self, rows: Sequence[int] | np.ndarray) -> "DatasetImages":
        """The images at these positions, in this order."""
        part = object.__new__(DatasetImages)
        part._dataset = self._dataset.select(rows)
        part._images = part._dataset.select_columns(["image"])
        part.split, part.label_names = self.split, self.label_names
        part.labels, part._numbers = self.labels[rows], self._numbers[rows]
        return part

    def number(self, row: int) -> int:
        """Number of an image in the split that it was chosen from."""
        return int(self._numbers[row])

    def entries(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """`{"bytes": ..., "path": ...}` for each of these positions."""
        return self._images[list(rows)]["image"]


def as_images(split: LabeledSplit) -> LabeledImages:
    """
    Args:
        split (`datasets.Dataset` or [`RecordImages`]): What [`load_splits`] returns.

    Raises:
        ValueError: The columns do not fit.
    """
    return DatasetImages(split) if isinstance(split, datasets.Dataset) else split


def _check_columns(dataset: datasets.Dataset) -> None:
    columns = dataset.column_names
    if not {"image", "label"} <= set(columns) or not isinstance(dataset.features["label"], datasets.ClassLabel):
        raise ValueError(
            f"the data set needs the columns `image` and `label` (a ClassLabel) and has {', '.join(columns)}; load it "
            "with load_splits"
        )
