"""Pairs of images of which each shows one person or two, as face verification is tested with."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from .batched import BatchedImages
from .decoding import decode_in_set
from .image_folder import IMAGE_SUFFIXES, files_below
from .labels import LABEL_NAMES, find_image_column
from .pair_lists import IndexedPairs, lfw_identity, read_lfw_pairs, read_pairs_csv
from .pixels import prepare_images, working_size
from .transforms import Normalizer
from .verification_bin import read_verification_bin


@dataclass(frozen=True, eq=False)
class VerificationSet:
    """
    Pairs of images. An image in several pairs is there once, so that it is decoded and embedded once.

    Args:
        name (`str`): What results call it, e.g. `"lfw"`.
        images (`Sequence[dict]`): Undecoded images, `{"bytes": bytes or None, "path": str or None}`.
        index_a (`np.ndarray` of `int64` and shape `(num_pairs,)`): Number of the first image of every pair.
        index_b (`np.ndarray` of `int64` and shape `(num_pairs,)`): Number of the second image.
        is_same (`np.ndarray` of `bool` and shape `(num_pairs,)`): Whether both show the same person.
        folds (`np.ndarray` of `int64` and shape `(num_pairs,)`, *optional*):
            Fold of every pair, where the source defines folds; [`default_folds`] are for the others.
        names (`Sequence[str]`, *optional*): Person on every image, where the source says.

    Raises:
        ValueError: Lengths differ, an image number is out of range, or a pair contradicts the names.

    Example:

    ```python
    >>> pairs = load_verification_set("lfw.bin")
    >>> loader = DataLoader(pairs.dataset(processor), batch_size=64, collate_fn=collate)
    >>> embeddings = torch.cat([model(**batch).embeddings for batch in loader])
    >>> verify_pairs(embeddings[pairs.index_a], embeddings[pairs.index_b], pairs.is_same, pairs.folds)
    ```
    """

    name: str
    images: Sequence[dict[str, Any]]
    index_a: np.ndarray
    index_b: np.ndarray
    is_same: np.ndarray
    folds: np.ndarray | None = None
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for field, kind in (("index_a", np.int64), ("index_b", np.int64), ("is_same", bool), ("folds", np.int64)):
            value = getattr(self, field)
            if value is not None:
                object.__setattr__(self, field, np.asarray(value, dtype=kind))
        self._check_lengths()
        for field in ("index_a", "index_b"):
            bad = np.flatnonzero((getattr(self, field) < 0) | (getattr(self, field) >= len(self.images)))
            if len(bad):
                raise ValueError(
                    f"`{field}` of pair {bad[0]} of {self.name} is {getattr(self, field)[bad[0]]}; there are "
                    f"{len(self.images)} images, from 0"
                )
        self._check_names()

    def __len__(self) -> int:
        return len(self.is_same)

    def dataset(self, processor: Any) -> "VerificationImages":
        """
        The images, each once, as a network reads them. Mirrored, they are `pixel_values.flip(-1)`.

        Args:
            processor (`Any`): An image processor, e.g. [`HeadShareImageProcessor`].
        """
        return VerificationImages(self.images, self.name, processor)

    def _check_lengths(self) -> None:
        lengths = {
            field: len(getattr(self, field))
            for field in ("index_a", "index_b", "is_same", "folds")
            if getattr(self, field) is not None
        }
        if len(set(lengths.values())) != 1 or not len(self.is_same):
            found = ", ".join(f"`{field}` {length}" for field, length in lengths.items())
            raise ValueError(f"{self.name} needs as many of each, and at least one pair: {found}")
        if self.names is not None and len(self.names) != len(self.images):
            raise ValueError(f"{self.name} has {len(self.names)} `names` for {len(self.images)} images")

    def _check_names(self) -> None:
        if self.names is None:
            return
        for pair, (a, b, same) in enumerate(zip(self.index_a, self.index_b, self.is_same, strict=True)):
            if (self.names[a] == self.names[b]) != same:
                raise ValueError(
                    f"pair {pair} of {self.name} (from 0) is marked as {'the same' if same else 'two'}, but its images "
                    f"{a} and {b} show {self.names[a]!r} and {self.names[b]!r}"
                )


class VerificationImages(BatchedImages):
    """
    Images of a [`VerificationSet`]; a batch is `{"pixel_values": float32 (batch_size, num_channels, height, width)}`.

    Args:
        images (`Sequence[dict]`): Undecoded images, `{"bytes": bytes or None, "path": str or None}`.
        name (`str`): Name of the set, for messages.
        processor (`Any`): An image processor; it resizes images of another size, and sees to the channels.

    Raises:
        ValueError: The processor leaves images at different sizes.
        CorruptImageError: When an image is read that cannot be decoded; names set, image and file.
    """

    def __init__(self, images: Sequence[dict[str, Any]], name: str, processor: Any) -> None:
        working_size(processor)
        self._images, self._name, self._processor = images, name, processor
        self._normalize = Normalizer(processor)

    def __len__(self) -> int:
        return len(self._images)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """See [`BatchedImages`]."""
        images = [decode_in_set(self._images[index], self._name, index) for index in map(int, indices)]
        return {"pixel_values": self._normalize(prepare_images(images, self._processor))}


def load_verification_set(
    path: str | os.PathLike, *, pairs_file: str | os.PathLike | None = None, name: str | None = None
) -> VerificationSet:
    """
    Pairs of images from one of these:

    - a `.bin` file of InsightFace (`lfw.bin`, `cfp_fp.bin`, `agedb_30.bin`, ...), see [`read_verification_bin`];
    - a folder with `pairs.csv` (columns `index_a`, `index_b`, `same` and perhaps `name_a`, `name_b`) beside the parquet
      file of the images that the indices count, or with both in its subfolder `verification`. The column `label` of the
      parquet file says who is on an image; without it, `name_a` and `name_b` do, less a final `_0001`;
    - a folder of image files `person/person_0001.jpg` with the `pairs.txt` of Labeled Faces in the Wild: View 2, with
      its folds, or View 1.

    Args:
        path (`str` or `os.PathLike`): The file or the folder.
        pairs_file (`str` or `os.PathLike`, *optional*): The `.csv` or `.txt` file, where it is not in the folder.
        name (`str`, *optional*): Of the set; defaults to that of the file or folder (the parent of one
            called `verification`).

    Raises:
        FileNotFoundError: There is no such file or folder, or none of pairs in it.
        ValueError: What is there cannot be understood; names file, and line or entry.
    """
    path = Path(path).expanduser()
    if path.suffix == ".bin" and path.is_file():
        if pairs_file is not None:
            raise ValueError(f"{path} has its own pairs; leave out `pairs_file`")
        return _load_bin(path, name or path.stem)
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is neither a folder nor a .bin file")
    pairs = _find_pairs(path) if pairs_file is None else Path(pairs_file).expanduser()
    if not pairs.is_file():
        raise FileNotFoundError(f"the list of pairs {pairs} does not exist")
    load = {".csv": _load_csv, ".txt": _load_lfw}.get(pairs.suffix)
    if load is None:
        raise ValueError(f"{pairs} is neither a .csv nor a .txt file")
    # A folder with training images beside the pairs calls them so.
    own_name = path.parent.name if path.name == "verification" else path.name
    return load(path, pairs, name or own_name)


def shared_identities(names_a: Sequence[str], names_b: Sequence[str]) -> list[str]:
    """
    People on both sides, sorted: with training on the one and testing on the other, there should be none.

    Args:
        names_a (`Sequence[str]`): Names, e.g. `label_names` of the training set.
        names_b (`Sequence[str]`): Names, e.g. those of a [`VerificationSet`].

    Returns:
        `list[str]`: For the caller to count, show or refuse.
    """
    return sorted(set(names_a) & set(names_b))


def _load_bin(path: Path, name: str) -> VerificationSet:
    entries, is_same = read_verification_bin(path)
    numbers: dict[bytes, int] = {}
    index = np.array([numbers.setdefault(entry, len(numbers)) for entry in entries], dtype=np.int64)
    images = [{"bytes": entry, "path": None} for entry in numbers]
    return VerificationSet(name, images, index[0::2], index[1::2], is_same)


def _find_pairs(folder: Path) -> Path:
    places = [folder / "pairs.csv", folder / "verification" / "pairs.csv", folder / "pairs.txt"]
    found = [place for place in places if place.is_file()]
    if not found:
        raise FileNotFoundError(f"none of {', '.join(map(str, places))} exists; give `pairs_file`")
    if len(found) > 1:
        raise ValueError(f"{' and '.join(map(str, found))} are both there; choose with `pairs_file`")
    return found[0]


def _load_csv(folder: Path, file: Path, name: str) -> VerificationSet:
    dataset = _read_parquet(folder, file)
    pairs = read_pairs_csv(file, len(dataset))
    images = dataset.select_columns(["image"])["image"][:]
    return VerificationSet(
        name, images, pairs.index_a, pairs.index_b, pairs.is_same, None, _identities(dataset, pairs)
    )


def _read_parquet(folder: Path, pairs: Path) -> datasets.Dataset:
    # Beside the list of pairs before anywhere else: the folder above may hold what is trained on.
    places = (pairs.parent, folder, folder / "verification")
    files = next(filter(None, (sorted(place.glob("*.parquet")) for place in places)), [])
    stems = {re.sub(r"-\d+-of-\d+$", "", file.stem) for file in files}
    if len(stems) != 1:
        found = f"parquet files of several splits ({', '.join(sorted(stems))})" if stems else "no parquet file"
        raise ValueError(f"{folder} holds {found}; the list of pairs counts the rows of one split")
    dataset = datasets.Dataset(pa.concat_tables([pq.read_table(file) for file in files]))
    column = find_image_column(dataset, None, str(folder))
    dataset = dataset if column == "image" else dataset.rename_column(column, "image")
    return dataset.cast_column("image", datasets.Image(decode=False))


def _identities(dataset: datasets.Dataset, pairs: IndexedPairs) -> list[str] | None:
    column = next((name for name in LABEL_NAMES if name in dataset.column_names), None)
    if column is not None:
        labels, feature = dataset[column][:], dataset.features[column]
        return [feature.names[label] if isinstance(feature, datasets.ClassLabel) else str(label) for label in labels]
    if len(pairs.names) < len(dataset):
        return None
    return [lfw_identity(pairs.names[index]) for index in range(len(dataset))]


def _load_lfw(folder: Path, file: Path, name: str) -> VerificationSet:
    pairs = read_lfw_pairs(file)
    numbers: dict[str, int] = {}
    index_a, index_b = (
        np.array([numbers.setdefault(stem, len(numbers)) for stem in stems]) for stems in (pairs.first, pairs.second)
    )
    images = [{"bytes": None, "path": str(path)} for path in _find_images(folder, list(numbers), file)]
    names = [lfw_identity(stem) for stem in numbers]
    folds = None if pairs.folds is None else np.array(pairs.folds)
    return VerificationSet(name, images, index_a, index_b, np.array(pairs.is_same), folds, names)


def _find_images(folder: Path, stems: list[str], file: Path) -> list[Path]:
    places: dict[str, list[Path]] = {}
    for path in sorted(files_below(folder)):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            places.setdefault(path.stem, []).append(path)
    for stem in stems:
        found = places.get(stem, [])
        if not found:
            raise FileNotFoundError(f"{file} lists the image {stem}, of which there is no file below {folder}")
        if len(found) > 1:
            raise ValueError(f"{file} lists the image {stem}, which may be {found[0]} or {found[1]}; keep one")
    return [places[stem][0] for stem in stems]
