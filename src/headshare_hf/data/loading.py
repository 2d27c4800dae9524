"""Labelled images from anywhere, in one form."""

import os
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np

from .images import LabeledSplit
from .labels import encode_labels, find_image_column, find_label_column, label_names
from .record_folder import is_record_source, read_record_splits
from .sources import compare_class_names, read_splits
from .subsets import split_off, take_samples


def load_images(
    name_or_path: str | os.PathLike,
    split: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    config_name: str | None = None,
    cache_dir: str | None = None,
) -> LabeledSplit:
    """
    One split of [`load_splits`]. Load splits that belong together with that function: it sees to it that they share
    one label map.

    Args:
        name_or_path (`str` or `os.PathLike`): As in [`load_splits`], as the following.
        split (`str`): Name of the split.
        image_column (`str`, *optional*): Column of the images.
        label_column (`str`, *optional*): Column of the labels.
        config_name (`str`, *optional*): Configuration.
        cache_dir (`str`, *optional*): Folder for what is converted or downloaded.

    Raises:
        FileNotFoundError, ValueError: As [`load_splits`].
    """
    return load_splits(
        name_or_path,
        [split],
        image_column=image_column,
        label_column=label_column,
        config_name=config_name,
        cache_dir=cache_dir,
    )[0]


def load_splits(
    name_or_path: str | os.PathLike,
    splits: Sequence[str],
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    config_name: str | None = None,
    cache_dir: str | None = None,
    validation_fraction: float = 0.0,
    max_samples: Sequence[int | None] | None = None,
    seed: int = 0,
) -> list[LabeledSplit]:
    """
    Splits of one data set that share one label map.

    Args:
        name_or_path (`str` or `os.PathLike`):
            Id of a Hub data set, folder of parquet files, one parquet file (its only split is `train`), or folder of
            images as `class/file` (its only split is `train`) or `split/class/file`. Also a folder of InsightFace's
            record files, `split.rec` with `split.idx`, or one such file (its only split is `train`).
        splits (`Sequence[str]`): Names of the splits.
        image_column (`str`, *optional*):
            Column of the images. Found by itself when it is called `image` or `img` or is the only one of images.
        label_column (`str`, *optional*):
            Column of the labels: `ClassLabel`, text or whole numbers. Found by itself when it is called `label`,
            `labels`, `fine_label`, `target`, `class` or `category`, or is the only `ClassLabel`. Text and numbers turn
            into classes in sorted order, those of the first split for all of them.
        config_name (`str`, *optional*): Configuration of a Hub data set or of a folder with several.
        cache_dir (`str`, *optional*): Folder for what is converted or downloaded; defaults to that of `datasets`.
        validation_fraction (`float`, *optional*, defaults to 0.0):
            Share of the first split, stratified by class, that is returned in place of the second one, which is not
            read.
        max_samples (`Sequence[int | None]`, *optional*):
            For every split, how many images to keep at most, stratified by class; `None` keeps all.
        seed (`int`, *optional*, defaults to 0): Of both kinds of choice.

    Returns:
        `list[datasets.Dataset]`: With the columns `image` (`datasets.Image(decode=False)`: bytes or path), `label`
        (`datasets.ClassLabel`) and `row` (`int64`, the number of the row in its split, which stays with the image when
        rows are chosen). Record files, which are read where they lie, give `list[RecordImages]`.

    Raises:
        FileNotFoundError: There is no such file, folder or data set.
        ValueError: A split or a column is missing, the splits name their classes differently, a split is empty or of
            one class, or a label is out of range. The message names the split and the row.
    """
    if validation_fraction and len(splits) != 2:
        raise ValueError(f"`validation_fraction` needs two splits, training and validation, not {len(splits)}")
    if max_samples is not None and len(max_samples) != len(splits):
        raise ValueError(f"`max_samples` has {len(max_samples)} entries for {len(splits)} splits; give one for each")
    wanted = splits[:1] if validation_fraction else splits
    columns = {"image_column": image_column, "label_column": label_column}
    loaded: list[Any]
    if is_record_source(name_or_path):
        loaded = read_record_splits(name_or_path, wanted, cache_dir, config_name=config_name, **columns)
    else:
        options = {"config_name": config_name, "label_column": label_column, "cache_dir": cache_dir}
        raw = read_splits(name_or_path, wanted, **options)
        loaded = _share_label_map(raw, [f"split {split!r} of {name_or_path}" for split in wanted], **columns)
    if validation_fraction:
        loaded = list(split_off(loaded[0], validation_fraction, seed))
    return [
        take_samples(part, count, seed)
        for part, count in zip(loaded, max_samples or [None] * len(loaded), strict=True)
    ]


def _share_label_map(
    raw: Sequence[datasets.Dataset], places: Sequence[str], image_column: str | None, label_column: str | None
) -> list[datasets.Dataset]:
    names: list[str] | None = None
    loaded = []
    for dataset, where in zip(raw, places, strict=True):
        image = find_image_column(dataset, image_column, where)
        label = find_label_column(dataset, label_column, where)
        if names is None:
            names = label_names(dataset, label, where)
        elif isinstance(dataset.features[label], datasets.ClassLabel):
            compare_class_names(names, list(dataset.features[label].names), places[0], where)
        loaded.append(_normalize(dataset, image, encode_labels(dataset, label, names, where), names))
    return loaded


def _normalize(dataset: datasets.Dataset, image: str, labels: np.ndarray, names: list[str]) -> datasets.Dataset:
    dataset = dataset.select_columns([image])
    if image != "image":
        dataset = dataset.rename_column(image, "image")
    dataset = dataset.cast_column("image", datasets.Image(decode=False))
    dataset = dataset.add_column("label", labels, feature=datasets.ClassLabel(names=names))
    return dataset.add_column("row", np.arange(len(dataset)), feature=datasets.Value("int64"))
