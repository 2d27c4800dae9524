"""Labelled images in the RecordIO files of InsightFace (deepinsight/insightface, mxnet's `recordio.py`)."""

import hashlib
import logging
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from tqdm.auto import tqdm

from .record_extents import check_extents, record_ends
from .record_index import write_atomically
from .recordio import RecordError, RecordFile


logger = logging.getLogger(__name__)

_HEADER = struct.Struct("<IfQQ")
# What precedes the image: both words of the record, the header, and the first label where they are packed behind it.
_HEAD = np.dtype(
    [("magic", "<u4"), ("word", "<u4"), ("flag", "<u4"), ("label", "<f4"), ("ids", "<u8", 2), ("first", "<f4")]
)
_CHUNK = 65536
_MAX_EXACT = 1 << 24


class ImageRecord(NamedTuple):
    """
    What a record holds.

    Attributes:
        labels (`np.ndarray` of `float32` and shape `(num_labels,)`): One or several; the first is the class.
        image (`bytes`): The encoded image.
    """

    labels: np.ndarray
    image: bytes


def pack_image(image: bytes, labels: Sequence[float], number: int) -> bytes:
    """
    The payload of an image record.

    Args:
        image (`bytes`): The encoded image.
        labels (`Sequence[float]`): One label goes into the header, several follow it.
        number (`int`): Of the image, kept in the header.

    Raises:
        ValueError: The class does not fit into the float32 that holds it.
    """
    if labels[0] > _MAX_EXACT:
        raise ValueError(
            f"class {labels[0]} of image {number} is above {_MAX_EXACT}, where float32 is no longer exact"
        )
    if len(labels) == 1:
        return _HEADER.pack(0, labels[0], number, 0) + image
    return _HEADER.pack(len(labels), 0.0, number, 0) + np.asarray(labels, dtype="<f4").tobytes() + image


def unpack_image(payload: bytes, where: str) -> ImageRecord:
    """
    Args:
        payload (`bytes`): Of an image record.
        where (`str`): Its number and file, for the messages.

    Raises:
        RecordError: It is shorter than its header says.
    """
    if len(payload) < _HEADER.size:
        raise RecordError(f"{where} has {len(payload)} bytes, less than its header of {_HEADER.size}")
    flag, label, _, _ = _HEADER.unpack_from(payload)
    start = _HEADER.size + 4 * flag
    if len(payload) < start:
        raise RecordError(f"{where} has {len(payload)} bytes, but its header says that {flag} labels follow")
    if flag == 0:
        return ImageRecord(np.array([label], dtype=np.float32), payload[start:])
    return ImageRecord(np.frombuffer(payload, "<f4", flag, _HEADER.size), payload[start:])


class RecordImages:
    """
    The images of one `.rec` file, in the form that [`ImageClassificationDataset`] reads.

    Record 0 of InsightFace's files holds no image but the range of those that do, and the records behind them describe
    identities; both are left out. In other files every record is an image.

    Args:
        path (`str` or `os.PathLike`): The `.rec` file; its `.idx` and, where there is one, `property` lie beside it.
        split (`str`, *optional*, defaults to `"train"`): Name for the messages.
        num_classes (`int`, *optional*):
            Number of classes of the split that this one belongs to. Defaults to that of `property`, which counts classes
            without images too, or to that of the labels, of which then none may be missing.
        cache_dir (`str`, *optional*):
            Where the labels are kept, so that only the first use has to go through the whole file; defaults to the
            folder of `datasets`.

    Attributes:
        split (`str`): Name of the split.
        labels (`np.ndarray` of `int64` and shape `(num_images,)`): Class of every image.
        label_names (`list[str]`): Name of every class: `LABEL_0`, `LABEL_1` and so on, because the files have none.

    Raises:
        FileNotFoundError: The `.rec` or the `.idx` file is missing.
        RecordError: A record cannot be read, its label is not a class, or the records of the index are not those of the
            whole file.
        ValueError: The index or `property` cannot be parsed, there is only one class, or a class has no image and
            `property` does not count it.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        split: str = "train",
        num_classes: int | None = None,
        cache_dir: str | None = None,
    ) -> None:
        self.split = split
        records = RecordFile(Path(path).expanduser())
        rows = _image_rows(records)
        self._records = records.select(slice(rows.start, rows.stop))
        self.labels = _cached_labels(records, rows, cache_dir)
        if num_classes is None:
            num_classes = self._count_classes()
        self._check_largest(num_classes, "the first split has")
        self.label_names = [f"LABEL_{number}" for number in range(num_classes)]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def path(self) -> Path:
        """The `.rec` file."""
        return self._records.path

    @property
    def fingerprint(self) -> str:
        """SHA-256 over where the records lie in their file, which is over the lengths of all images before them."""
        places = hashlib.sha256(self._records.keys.tobytes() + self._records.offsets.tobytes())
        return hashlib.sha256(f"{self._records.size} {places.hexdigest()}".encode()).hexdigest()

    def select(self, rows: Sequence[int] | np.ndarray) -> "RecordImages":
        """
        Some of the images.

        Args:
            rows (`Sequence[int]` or `np.ndarray`): Their positions; they come in this order.
        """
        part = object.__new__(RecordImages)
        rows = np.asarray(rows, dtype=np.int64)
        part.split, part.label_names = self.split, self.label_names
        part._records, part.labels = self._records.select(rows), self.labels[rows]
        return part

    def number(self, row: int) -> int:
        """Number of the record of an image."""
        return int(self._records.keys[row])

    def entries(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """
        Encoded images.

        Args:
            rows (`Sequence[int]`): Their positions.

        Returns:
            `list[dict[str, Any]]`: `{"bytes": ..., "path": ...}` for each; `path` names file and record.

        Raises:
            RecordError: A record cannot be read.
        """
        entries = []
        for row in rows:
            image = unpack_image(self._records.read(row), self.where(row)).image
            entries.append({"bytes": image, "path": f"{self.path}, record {self._records.keys[row]}"})
        return entries

    def where(self, row: int) -> str:
        """Record and file of an image, for messages."""
        return f"record {self._records.keys[row]} of {self.path}"

    def _check_largest(self, num_classes: int, says: str) -> None:
        largest = int(self.labels.argmax())
        if self.labels[largest] >= num_classes:
            raise ValueError(
                f"{self.where(largest)} has label {self.labels[largest]}, but {says} {num_classes} classes; correct "
                "the label or the number of classes"
            )

    def _count_classes(self) -> int:
        declared, counts = _declared_classes(self.path.parent / "property"), np.bincount(self.labels)
        if np.count_nonzero(counts) == 1:
            raise ValueError(f"{self.path} has only the class {counts.argmax()}; a classifier needs two or more")
        if declared is not None:
            self._check_largest(declared, f"{self.path.parent / 'property'} says")
            return declared
        if not counts.all():
            missing = int(counts.argmin())
            above = int((self.labels > missing).argmax())
            raise ValueError(
                f"{self.where(above)} has label {self.labels[above]}, but no record has label {missing}; renumber the "
                f"classes from zero without a gap, or write {self.path.parent / 'property'} (number of classes, height "
                "and width), which counts classes without images too"
            )
        return len(counts)


def _image_rows(records: RecordFile) -> range:
    if records.keys[0] != 0:
        return range(len(records))
    first = unpack_image(records.read(0), f"record 0 of {records.path}")
    if first.image or len(first.labels) < 2:
        return range(len(records))
    end = int(first.labels[0])
    rows = range(1, int(np.searchsorted(records.keys, end)))
    if len(rows) != end - 1 or end < 2:
        raise ValueError(
            f"record 0 of {records.path} says that records 1 to {end - 1} are images, but the index has {len(rows)} "
            "of them; the index belongs to another file or is not complete"
        )
    return rows


def _declared_classes(path: Path) -> int | None:
    """First number of the file `property`, "classes,height,width"."""
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not text.split(",")[0].strip().isdigit():
        raise ValueError(f"{path} is {text[:80]!r}; it must be number of classes, height and width, e.g. 1000,112,112")
    return int(text.split(",")[0])


def _cached_labels(records: RecordFile, images: range, cache_dir: str | None) -> np.ndarray:
    stats = [path.stat() for path in (records.path, records.path.with_suffix(".idx"))]
    key = repr((str(records.path.resolve()), [(stat.st_size, stat.st_mtime_ns) for stat in stats]))
    # Labels of an earlier form of this folder's name were kept without the check of the index.
    folder = Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / "headshare_hf-checked-record-labels"
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.int32"
    if path.is_file() and path.stat().st_size == 4 * len(images):
        return np.fromfile(path, dtype="<i4").astype(np.int64)
    labels = _read_labels(records, images)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, labels.astype("<i4").tobytes())
    except OSError as error:
        logger.info("the labels of %s are not kept for the next time: %s", records.path, error)
    return labels


def _read_labels(records: RecordFile, images: range) -> np.ndarray:
    """Labels of the images, in one pass that also checks the index: all of its records, with those of no image."""
    labels, ends = np.zeros(len(records), dtype=np.int64), np.empty(len(records), dtype=np.int64)
    with tqdm(total=len(records), desc="reading labels", disable=None, delay=2) as progress:
        for start in range(0, len(records), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(records)))
            heads = records.heads(rows, _HEAD.itemsize).view(_HEAD)[:, 0]
            # A word without kind is a length. What is in parts, or wrong, is read on its own: slower, and says what.
            whole = (heads["magic"] == 0xCED7230A) & (heads["word"] >> 29 == 0)
            # Rows of no image come first and last, so that those of images in a chunk have no gap.
            part = slice(max(images.start - start, 0), max(images.stop - start, 0))
            labels[rows.start : rows.stop][part] = _labels_of(records, rows[part], heads[part], whole[part])
            ends[rows.start : rows.stop] = record_ends(records, rows, heads["word"], whole)
            progress.update(len(rows))
    check_extents(records, ends)
    return labels[images.start : images.stop]


def _labels_of(records: RecordFile, rows: range, heads: np.ndarray, whole: np.ndarray) -> np.ndarray:
    labels = np.where(heads["flag"] > 0, heads["first"], heads["label"])
    simple = whole & (heads["word"] >= _HEADER.size + 4 * np.minimum(heads["flag"], 1))
    for position in np.flatnonzero(~simple):
        where = f"record {records.keys[rows[position]]} of {records.path}"
        labels[position] = unpack_image(records.read(rows[position]), where).labels[0]
    valid = (labels >= 0) & (labels <= _MAX_EXACT) & (labels == np.floor(labels))
    if not valid.all():
        wrong = int(np.argmin(valid))
        raise RecordError(
            f"record {records.keys[rows[wrong]]} of {records.path} has label {labels[wrong]}; labels are whole numbers "
            "from zero"
        )
    return labels.astype(np.int64)
