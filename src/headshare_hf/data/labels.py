"""Finding the image and the label column, and bringing labels to numbers from zero."""

from typing import Any

import datasets
import numpy as np


IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label", "target", "class", "category")

_FILES = {"binary", "large_binary", "string", "large_string"}
_PLAIN = {"bool", "string", "large_string", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}


def find_image_column(dataset: datasets.Dataset, requested: str | None, where: str) -> str:
    """
    The requested column, or the one called `image` or `img`, or the only one of images.

    Raises:
        ValueError: There is none, or several (the columns are listed), or it holds something else than image files.
    """
    images = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    column = _find(dataset, requested, IMAGE_NAMES, images, "image", where)
    feature = dataset.features[column]
    encoded = isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    if not (encoded or isinstance(feature, datasets.Image) or getattr(feature, "dtype", None) in _FILES):
        raise ValueError(f"column {column!r} of {where} holds {feature}; images are encoded bytes or paths of files")
    return column


def find_label_column(dataset: datasets.Dataset, requested: str | None, where: str) -> str:
    """
    The requested column, or the first of `LABEL_NAMES`, or the only one of class labels.

    Raises:
        ValueError: There is none, or several; the columns are listed.
    """
    labels = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.ClassLabel)]
    return _find(dataset, requested, LABEL_NAMES, labels, "label", where)


def _find(
    dataset: datasets.Dataset, requested: str | None, usual: tuple[str, ...], typed: list[str], kind: str, where: str
) -> str:
    columns = dataset.column_names
    if requested is not None:
        if requested not in columns:
            raise ValueError(f"{where} has no column {requested!r}; columns: {', '.join(columns)}")
        return requested
    named = [name for name in usual if name in columns]
    if named:
        return named[0]
    if len(typed) != 1:
        found = "several" if typed else "no"
        raise ValueError(f"{where} has {found} {kind} columns among {', '.join(columns)}; set `{kind}_column`")
    return typed[0]


def label_names(dataset: datasets.Dataset, column: str, where: str) -> list[str]:
    """
    The class names of a column: those that it declares, or its values in sorted order.

    Raises:
        ValueError: The column holds something else than class labels, text or whole numbers.
    """
    feature = dataset.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return list(feature.names)
    if not isinstance(feature, datasets.Value) or feature.dtype not in _PLAIN:
        raise ValueError(f"column {column!r} of {where} holds {feature}; labels are text, whole numbers or ClassLabel")
    return [str(value) for value in sorted(set(dataset[column]) - {None})]


def encode_labels(dataset: datasets.Dataset, column: str, names: list[str], where: str) -> np.ndarray:
    """
    The labels as numbers in [0, num_classes).

    Args:
        dataset (`datasets.Dataset`): One split.
        column (`str`): Its label column.
        names (`list[str]`): Name of every class, in order.
        where (`str`): Split and source, for the messages.

    Returns:
        `np.ndarray` of `int64` and shape `(num_rows,)`.

    Raises:
        ValueError: The split is empty or of one class, or a label is missing, out of range or not among the names.
    """
    if len(dataset) == 0:
        raise ValueError(f"{where} is empty")
    values = list(dataset[column])
    if isinstance(dataset.features[column], datasets.ClassLabel):
        codes = [_check_code(value, row, len(names), where) for row, value in enumerate(values)]
    else:
        numbers = {name: number for number, name in enumerate(names)}
        codes = [_to_code(value, row, numbers, where) for row, value in enumerate(values)]
    if len(set(codes)) < 2:
        raise ValueError(f"{where} has only the class {names[codes[0]]!r}; a classifier needs two or more")
    return np.array(codes, dtype=np.int64)


def _check_code(value: Any, row: int, num_classes: int, where: str) -> int:
    if value is None or not 0 <= value < num_classes:
        raise ValueError(f"row {row} of {where} has label {value}; labels are 0 to {num_classes - 1}")
    return value


def _to_code(value: Any, row: int, numbers: dict[str, int], where: str) -> int:
    if value is None or (isinstance(value, int) and value < 0):
        raise ValueError(f"row {row} of {where} has label {value}; labels are text or numbers from zero")
    if str(value) not in numbers:
        known = ", ".join(list(numbers)[:20])
        raise ValueError(f"row {row} of {where} has label {value!r}, which the first split lacks; it has {known}")
    return numbers[str(value)]
