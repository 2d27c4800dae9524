"""Open sets: classes that are kept from training, and pairs of their images to verify."""

import fnmatch
from collections.abc import Sequence

import datasets
import numpy as np

from .images import LabeledSplit, as_images
from .randomness import random_bits
from .verification_set import VerificationSet


_PAIRS = 5
# A recipe calls it otherwise.
_FIELD = "`num_pairs` (of a recipe: `verification.held_out_pairs`)"


def hold_out_classes(dataset: LabeledSplit, patterns: Sequence[str]) -> tuple[datasets.Dataset, datasets.Dataset]:
    """
    Divides a data set by its classes, so that what is verified was never learned.

    Args:
        dataset (`datasets.Dataset`): A split as [`load_splits`] returns it.
        patterns (`Sequence[str]`): Names of the classes to hold out, in which `*` stands for any text.

    Returns:
        `tuple[datasets.Dataset, datasets.Dataset]`: The classes that stay, and those held out. Each has its own label
        map, in the old order.

    Raises:
        ValueError: The source names no classes, a pattern fits none, or too few remain to train on.
    """
    if not isinstance(dataset, datasets.Dataset):
        raise ValueError(
            "record files do not name their classes, so that none can be held out by name; use `--to folder`"
            " of `python -m headshare_hf.data.convert`, and move the folders of those classes away"
        )
    names = dataset.features["label"].names
    chosen = {name for pattern in patterns for name in _matching(pattern, names)}
    if len(names) - len(chosen) < 2:
        raise ValueError(f"`held_out_classes` leaves {len(names) - len(chosen)} classes to train on; hold out fewer")
    stays = np.array([name not in chosen for name in names])
    return _keep(dataset, stays), _keep(dataset, ~stays)


def _matching(pattern: str, names: Sequence[str]) -> list[str]:
    # Brackets are ordinary characters in the names of people and alphabets.
    found = fnmatch.filter(names, pattern.replace("[", "[[]"))
    if not found:
        raise ValueError(f"`held_out_classes`: no class is called {pattern!r}; there are {', '.join(names[:5])}, ...")
    return found


def _keep(dataset: datasets.Dataset, kept: np.ndarray) -> datasets.Dataset:
    labels = as_images(dataset).labels
    rows = np.flatnonzero(kept[labels])
    new_labels = (np.cumsum(kept) - 1)[labels[rows]]
    names = [name for name, keep in zip(dataset.features["label"].names, kept, strict=True) if keep]
    part = dataset.select(rows).remove_columns("label")
    return part.add_column("label", new_labels, feature=datasets.ClassLabel(names=names))


def draw_pairs(
    splits: Sequence[LabeledSplit], name: str, num_pairs: int = 6000, num_folds: int = 10, seed: int = 0
) -> VerificationSet:
    """
    Pairs of labelled images in the form of Labeled Faces in the Wild: folds of as many pairs of one class as of two.

    No pair is drawn twice. With enough classes the folds share none, as in that protocol; here every fold may hold
    every class, because small sets have few.

    Args:
        splits (`Sequence[LabeledSplit]`): Splits with one label map, e.g. what [`hold_out_classes`] held out.
        name (`str`): Name of the set.
        num_pairs (`int`, *optional*, defaults to 6000): How many, a multiple of twice `num_folds`.
        num_folds (`int`, *optional*, defaults to 10): Number of folds.
        seed (`int`, *optional*, defaults to 0): Of the choice.

    Raises:
        ValueError: There are not that many pairs of one class, or of two, or the number cannot be divided.
    """
    if num_pairs % (2 * num_folds) or num_pairs < 1:
        raise ValueError(f"{_FIELD} is {num_pairs}; it must be a positive multiple of {2 * num_folds}")
    images = [as_images(split) for split in splits]
    labels = np.concatenate([part.labels for part in images])
    half = num_pairs // 2
    same = _choose(_same_class(labels), half, "of one class", seed)
    other = _choose(_other_class(labels, half, seed), half, "of two classes", seed + 1)
    # Fold by fold, first the pairs of one class and then those of two, as in the file of that protocol.
    blocks = [np.concatenate(pair) for pair in zip(np.split(same, num_folds), np.split(other, num_folds), strict=True)]
    pairs, size = np.concatenate(blocks), num_pairs // num_folds
    is_same = np.tile(np.arange(size) < size // 2, num_folds)
    entries = [entry for part in images for entry in part.entries(range(len(part)))]
    names = [part.label_names[label] for part in images for label in part.labels]
    folds = np.repeat(np.arange(num_folds), size)
    return VerificationSet(name, entries, pairs[:, 0], pairs[:, 1], is_same, folds, names)


def _same_class(labels: np.ndarray) -> np.ndarray:
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    found = [np.stack([r[i] for i in np.triu_indices(len(r), 1)], axis=1) for r in rows]
    return np.concatenate(found)


def _other_class(labels: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    """Distinct pairs of two classes, four times as many as are wanted, or all of them where they are few."""
    count = len(labels)
    if count * (count - 1) // 2 <= 16 * wanted:
        first, second = np.triu_indices(count, 1)
    else:
        drawn = random_bits(seed, 0, np.arange(16 * wanted), _PAIRS)
        first, second = (
            (drawn % np.uint64(count)).astype(np.int64),
            (drawn // np.uint64(count) % np.uint64(count)).astype(np.int64),
        )
        first, second = np.minimum(first, second), np.maximum(first, second)
    pairs = np.unique(np.stack([first, second], axis=1), axis=0)
    return pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]


def _choose(pairs: np.ndarray, count: int, kind: str, seed: int) -> np.ndarray:
    if len(pairs) < count:
        raise ValueError(f"there are {len(pairs)} pairs {kind}, and {count} are wanted; lower {_FIELD}")
    return pairs[np.argsort(random_bits(seed, 1, np.arange(len(pairs)), _PAIRS), kind="stable")[:count]]
