"""Folders of InsightFace's record files, one per split."""

import os
from collections.abc import Sequence
from pathlib import Path

from .record_images import RecordImages
from .sources import check_splits


def is_record_source(name_or_path: str | os.PathLike) -> bool:
    """Whether this is a `.rec` file or a folder with some."""
    path = Path(name_or_path).expanduser()
    return path.suffix == ".rec" or (path.is_dir() and next(path.glob("*.rec"), None) is not None)


def read_record_splits(
    name_or_path: str | os.PathLike, splits: Sequence[str], cache_dir: str | None = None, **unused: str | None
) -> list[RecordImages]:
    """
    Splits of record files, with as many classes as the first of them.

    Args:
        name_or_path (`str` or `os.PathLike`): A folder of `split.rec` files, or one file, whose only split is `train`.
        splits (`Sequence[str]`): Names of the splits.
        cache_dir (`str`, *optional*): Folder for the labels that were read.
        unused: Arguments that have no meaning for record files and must be `None`.

    Raises:
        FileNotFoundError, ValueError: As [`RecordImages`]; a split is missing, or an argument has no meaning.
    """
    path = Path(name_or_path).expanduser()
    for name, value in unused.items():
        if value is not None:
            raise ValueError(f"`{name}` is {value!r}, but the record files of {path} have no such thing; leave it out")
    files = {file.stem: file for file in sorted(path.glob("*.rec"))} if path.is_dir() else {"train": path}
    check_splits(path, splits, files)
    loaded: list[RecordImages] = []
    for split in splits:
        num_classes = len(loaded[0].label_names) if loaded else None
        loaded.append(RecordImages(files[split], split, num_classes, cache_dir))
    return loaded
