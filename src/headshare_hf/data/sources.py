"""Where images come from: the Hub, folders of parquet, single parquet files, folders of image files."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import datasets
import pyarrow.parquet as pq

from .image_folder import ImageFolder


def read_splits(
    name_or_path: str | os.PathLike,
    splits: Sequence[str],
    *,
    config_name: str | None = None,
    label_column: str | None = None,
    cache_dir: str | None = None,
) -> list[datasets.Dataset]:
    """
    Splits with the columns that they have at their source.

    Args:
        name_or_path (`str` or `os.PathLike`): As in [`load_splits`], as the following.
        splits (`Sequence[str]`): Names of the splits.
        config_name (`str`, *optional*): Configuration of a Hub data set or of a folder with several.
        label_column (`str`, *optional*): The only column whose class names have to agree between files.
        cache_dir (`str`, *optional*): Folder for what is converted or downloaded.

    Raises:
        FileNotFoundError: There is no such file, folder or data set.
        ValueError: A split is missing or empty, or parquet files name their classes differently.
    """
    path = Path(name_or_path).expanduser()
    if config_name is not None and (path.is_file() or _is_image_folder(path)):
        raise ValueError(f"`config_name` is {config_name!r}, but {path} has no configurations; leave it out")
    if _is_image_folder(path):
        folder = ImageFolder(path)
        check_splits(name_or_path, splits, folder.splits)
        return [folder.read(split) for split in splits]
    builder = _builder(str(name_or_path), path, config_name, cache_dir)
    files = builder.config.data_files or {}
    check_splits(name_or_path, splits, files or splits)
    _check_class_names([file for split in splits for file in files.get(split, ())], label_column)
    builder.download_and_prepare()
    check_splits(name_or_path, splits, builder.info.splits)
    for split in splits:
        if builder.info.splits[split].num_examples == 0:
            raise ValueError(f"split {split!r} of {name_or_path} is empty")
    return [builder.as_dataset(split=split) for split in splits]


def _is_image_folder(path: Path) -> bool:
    return path.is_dir() and next(path.rglob("*.parquet"), None) is None


def _builder(name: str, path: Path, config_name: str | None, cache_dir: str | None) -> datasets.DatasetBuilder:
    if path.is_file():
        return datasets.load_dataset_builder("parquet", data_files={"train": [str(path)]}, cache_dir=cache_dir)
    if path.is_dir():
        return datasets.load_dataset_builder(str(path), name=config_name, cache_dir=cache_dir)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.suffix == ".parquet":
        raise FileNotFoundError(f"{name} does not exist; give a folder, a parquet file or the id of a Hub data set")
    try:
        return datasets.load_dataset_builder(name, name=config_name, cache_dir=cache_dir)
    except (ConnectionError, FileNotFoundError) as error:
        raise FileNotFoundError(f"{name} is no local folder, and on the Hub: {error}") from error


def check_splits(name: str | os.PathLike, wanted: Sequence[str], present: Iterable[str]) -> None:
    """
    Raises:
        ValueError: A split is missing; those that are there are listed.
    """
    for split in wanted:
        if split not in present:
            raise ValueError(f"{name} has no split {split!r}; splits: {', '.join(map(str, present))}")


def _check_class_names(files: Sequence[str], label_column: str | None) -> None:
    # datasets reads every file with the features of the first. Were the names in another order in the next file, its
    # labels would silently mean other classes.
    first: dict[str, list[str]] = {}
    for file in files:
        if not os.path.isfile(file):
            continue
        for column, feature in datasets.Features.from_arrow_schema(pq.read_schema(file)).items():
            if isinstance(feature, datasets.ClassLabel) and label_column in (None, column):
                compare_class_names(first.setdefault(column, feature.names), feature.names, files[0], file)


def compare_class_names(left: list[str], right: list[str], left_name: str, right_name: str) -> None:
    """
    Raises:
        ValueError: The two lists of class names differ; the first difference is named.
    """
    if left == right:
        return
    for number in range(max(len(left), len(right))):
        one, other = (repr(names[number]) if number < len(names) else "missing" for names in (left, right))
        if one != other:
            raise ValueError(f"class {number} is {one} in {left_name} but {other} in {right_name}; use one label map")
