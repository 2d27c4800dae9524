"""Writing labelled images in another form, their encoded bytes untouched, going on where an earlier run stopped."""

import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import datasets
import numpy as np
import PIL.Image
import pyarrow
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from .decoding import CorruptImageError
from .images import LabeledImages
from .record_images import pack_image
from .record_index import write_atomically
from .recordio import RawRecords, RecordError, encode_record, rebuild_index


_BATCH = 256
_ROWS_PER_SHARD = 10_000
_ROWS_PER_SYNC = 4096

# First bytes of the files whose suffixes a folder of images is searched for.
_SIGNATURES = (
    (re.compile(rb"\xff\xd8\xff"), ".jpg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), ".png"),
    (re.compile(rb"GIF8[79]a"), ".gif"),
    (re.compile(rb"BM"), ".bmp"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), ".webp"),
    (re.compile(rb"II\*\0|MM\0\*"), ".tif"),
    (re.compile(rb"P[25]\s"), ".pgm"),
    (re.compile(rb"P[36]\s"), ".ppm"),
)


def write_records(images: LabeledImages, folder: Path, progress: tqdm) -> int:
    """
    `split.rec`, `split.idx` and `property`, as InsightFace's and mxnet's readers take them; every record is an image.

    Args:
        images ([`LabeledImages`]): The images.
        folder (`Path`): Where to.
        progress (`tqdm`): Counts images.

    Returns:
        `int`: How many images were written; those of an earlier run are not.
    """
    record, index = folder / f"{images.split}.rec", folder / f"{images.split}.idx"
    if index.is_file() and record.is_file():
        return 0
    _write_property(images, folder / "property")
    partial, partial_index = (path.with_name(f"{path.name}.partial") for path in (record, index))
    if record.is_file():
        # The earlier run ended between the two names, or the index was lost since.
        rebuild_index(record)
        partial_index.unlink(missing_ok=True)
        return 0
    done, end = _whole_records(partial, partial_index)
    with open(partial, "ab") as data, open(partial_index, "ab") as lines:
        data.truncate(end)
        progress.update(done)
        for start in range(done, len(images), _ROWS_PER_SYNC):
            end += _append(images, range(start, min(start + _ROWS_PER_SYNC, len(images))), data, lines, end, progress)
    os.replace(partial, record)
    os.replace(partial_index, index)
    return len(images) - done


def _append(images: LabeledImages, rows: range, data: BinaryIO, lines: BinaryIO, end: int, progress: tqdm) -> int:
    added, index = 0, bytearray()
    for row, image in encoded_images(images, rows):
        record = encode_record(pack_image(image, [float(images.labels[row])], row))
        index += b"%d\t%d\n" % (row, end + added)
        data.write(record)
        added += len(record)
        progress.update()
    # In this order: a line of the index is a promise that its record is there.
    _sync(data)
    lines.write(index)
    _sync(lines)
    return added


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _whole_records(record: Path, index: Path) -> tuple[int, int]:
    """How many records an earlier run has finished, and where they end; cuts the index behind them."""
    if not (record.is_file() and index.is_file()):
        record.unlink(missing_ok=True)
        index.unlink(missing_ok=True)
        return 0, 0
    text = index.read_bytes()
    text = text[: text.rfind(b"\n") + 1]
    done, end, raw = text.count(b"\n"), 0, RawRecords(record)
    while done:
        last = text[text.rfind(b"\n", 0, -1) + 1 :]
        try:
            end = raw.skip(int(last.split(b"\t")[1]), done - 1)
            break
        except RecordError:
            text, done = text[: -len(last)], done - 1
    os.truncate(index, len(text))
    return done, end


def _write_property(images: LabeledImages, path: Path) -> None:
    _, first = next(encoded_images(images, range(1)))
    with PIL.Image.open(io.BytesIO(first)) as image:
        content = f"{len(images.label_names)},{image.height},{image.width}"
    if path.is_file() and path.read_text(encoding="utf-8").split(",")[0] != str(len(images.label_names)):
        raise ValueError(f"{path} says {path.read_text(encoding='utf-8').strip()!r}, but the images are {content!r}")
    if not path.is_file():
        write_atomically(path, content.encode())


def write_parquet(images: LabeledImages, folder: Path, progress: tqdm) -> int:
    """
    `split-00000-of-00010.parquet` and so on, with `image` and `label` (with class names) as `datasets` stores them.

    Args, returns: As [`write_records`].
    """
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=images.label_names))
    count, written = -(-len(images) // _ROWS_PER_SHARD), 0
    for number in range(count):
        rows = range(number * _ROWS_PER_SHARD, min((number + 1) * _ROWS_PER_SHARD, len(images)))
        path = folder / f"{images.split}-{number:05d}-of-{count:05d}.parquet"
        if path.is_file():
            progress.update(len(rows))
            continue
        _write_shard(images, rows, path, features.arrow_schema, progress)
        written += len(rows)
    return written


def _write_shard(images: LabeledImages, rows: range, path: Path, schema: pyarrow.Schema, progress: tqdm) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for start in range(rows.start, rows.stop, _BATCH):
            batch = range(start, min(start + _BATCH, rows.stop))
            entries = [{"bytes": image, "path": file_name(image, row)} for row, image in encoded_images(images, batch)]
            table = pyarrow.table({"image": entries, "label": images.labels[batch.start : batch.stop]}, schema=schema)
            writer.write_table(table)
            progress.update(len(batch))
    os.replace(partial, path)


def write_folder(images: LabeledImages, folder: Path, progress: tqdm) -> int:
    """
    `split/class/00000000.jpg` and so on, in the order of the rows.

    Args, returns: As [`write_records`].
    """
    classes = [folder / images.split / name for name in class_folders(images.label_names)]
    for path in classes:
        path.mkdir(parents=True, exist_ok=True)
    for path in (path for folder in classes for path in folder.glob(".*.partial")):
        path.unlink()
    stems = (name.partition(".")[0] for path in classes for name in os.listdir(path))
    done = np.fromiter((int(stem) for stem in stems if stem.isdigit()), dtype=np.int64)
    missing = np.setdiff1d(np.arange(len(images)), done)
    progress.update(len(images) - len(missing))
    for row, image in encoded_images(images, missing.tolist()):
        write_atomically(classes[images.labels[row]] / file_name(image, row), image)
        progress.update()
    return len(missing)


def class_folders(names: list[str]) -> list[str]:
    """
    Names of folders that are read back as the classes in this order: the names where they do so, or numbered.

    Args:
        names (`list[str]`): Name of every class.
    """
    if sorted(set(names)) == names and all(re.fullmatch(r"[^./\0][^/\0]{0,60}", name) for name in names):
        return names
    digits = len(str(len(names) - 1))
    if names == [f"LABEL_{number}" for number in range(len(names))]:
        return [f"{number:0{digits}d}" for number in range(len(names))]
    cleaned = [re.sub(r"[/\0]", "-", name)[:60] for name in names]
    return [f"{number:0{digits}d} {name}" for number, name in enumerate(cleaned)]


def file_name(image: bytes, row: int) -> str:
    """
    Args:
        image (`bytes`): An encoded image, whose kind gives the suffix.
        row (`int`): Its number, which gives the name.

    Raises:
        CorruptImageError: It begins like no known kind of image.
    """
    for signature, suffix in _SIGNATURES:
        if signature.match(image):
            return f"{row:08d}{suffix}"
    raise CorruptImageError(
        f"row {row} begins with the bytes {image[:8].hex()}, which is no known kind of image; remove it from the source"
    )


def encoded_images(images: LabeledImages, rows: range | list[int]) -> Iterator[tuple[int, bytes]]:
    """
    Args:
        images ([`LabeledImages`]): The images.
        rows (`range` or `list[int]`): Which ones.

    Yields:
        `tuple[int, bytes]`: Row and encoded image.

    Raises:
        CorruptImageError: A row has no image.
    """
    for start in range(0, len(rows), _BATCH):
        batch = list(rows[start : start + _BATCH])
        for row, entry in zip(batch, images.entries(batch), strict=True):
            if entry is None or (entry["bytes"] is None and entry["path"] is None):
                raise CorruptImageError(f"row {row} of split {images.split!r} has no image; remove it from the source")
            yield row, Path(entry["path"]).read_bytes() if entry["bytes"] is None else entry["bytes"]


WRITERS: dict[str, Callable[[LabeledImages, Path, tqdm], int]] = {
    "rec": write_records,
    "parquet": write_parquet,
    "folder": write_folder,
}
