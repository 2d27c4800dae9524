"""Parts of a data set in which every class keeps its share."""

from typing import TypeVar

import datasets
import numpy as np

from .images import as_images
from .randomness import random_bits
from .record_images import RecordImages


_SUBSET = 4
_Split = TypeVar("_Split", datasets.Dataset, RecordImages)


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """
    An order of the rows, random but for this: every beginning of it holds each class in proportion, to one image.

    Args:
        labels (`np.ndarray` of `int64` and shape `(num_rows,)`): Class of every row.
        seed (`int`): See [`random_bits`].

    Returns:
        `np.ndarray` of `int64` and shape `(num_rows,)`: Numbers of the rows.
    """
    rows = np.arange(len(labels))
    bits = random_bits(seed, 0, rows, _SUBSET)
    by_class = np.lexsort((bits, labels))
    counts = np.bincount(labels)
    rank = rows - (counts.cumsum() - counts)[labels[by_class]]
    position = (rank + 0.5) / counts[labels[by_class]]
    return by_class[np.lexsort((bits[by_class], position))]


def take_samples(dataset: _Split, max_samples: int | None, seed: int) -> _Split:
    """
    At most `max_samples` rows, stratified by class and in their old order; all of them when it is `None`.

    Raises:
        ValueError: `max_samples` is not positive.
    """
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"`max_samples` is {max_samples}; it must be at least 1")
    if max_samples is None or max_samples >= len(dataset):
        return dataset
    order = stratified_order(as_images(dataset).labels, seed)
    return dataset.select(np.sort(order[:max_samples]))


def split_off(dataset: _Split, fraction: float, seed: int) -> tuple[_Split, _Split]:
    """
    Divides a data set into what remains and a stratified part to validate on.

    Args:
        dataset (`datasets.Dataset` or [`RecordImages`]): The images.
        fraction (`float`): Share of the rows, in (0, 1), in the second part.
        seed (`int`): See [`random_bits`].

    Raises:
        ValueError: The fraction is out of range, or leaves nothing to validate on, or no image of some class to train
            on.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"`validation_fraction` is {fraction}; it must lie between 0 and 1")
    images = as_images(dataset)
    labels = images.labels
    count = round(fraction * len(labels))
    order = stratified_order(labels, seed)
    held_out, rest = np.sort(order[:count]), np.sort(order[count:])
    if count == 0:
        raise ValueError(f"`validation_fraction` {fraction} of {len(labels)} images is none; raise it")
    lost = np.setdiff1d(labels[held_out], labels[rest])
    if len(lost):
        name = images.label_names[lost[0]]
        raise ValueError(f"`validation_fraction` {fraction} takes all images of class {name!r}; lower it")
    return dataset.select(rest), dataset.select(held_out)
