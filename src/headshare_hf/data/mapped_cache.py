"""Decoded images in files that are mapped into memory: for sets that memory does not hold, and for the next run."""

import errno
import hashlib
import json
import math
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from .cache import ImageCache


_KEY_FILE, _IMAGES_FILE, _CHECKSUMS_FILE = "key.json", "images.uint8", "checksums.uint32"


class MappedImageCache(ImageCache):
    """
    [`ImageCache`] in a folder that belongs to one set of images. Only what is asked for is read from the disk; all
    workers and processes of a machine share one copy of it, and later runs find it there.

    An image counts as there where its checksum fits, which is looked at once in every run. So whoever is killed while
    it writes, or shares the folder with others that write, leaves images that are whole or decoded again.

    Args:
        directory (`str` or `os.PathLike`): Where the folders of all sets are; made where needed.
        key (`Mapping[str, Any]`): Everything that the images depend on, as JSON has it; see [`image_cache_key`].
        num_images (`int`): Number of images.
        image_shape (`tuple[int, int, int]`): Channels, height and width.

    Attributes:
        folder (`Path`): The folder of this set.

    Raises:
        OSError: There is no room, also where that shows later.
        ValueError: `directory` is a file, or a file of the folder was cut.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        key: Mapping[str, Any],
        num_images: int,
        image_shape: tuple[int, int, int],
    ) -> None:
        super().__init__(num_images)
        self._shape = (num_images, *image_shape)
        sizes = {_IMAGES_FILE: math.prod(self._shape), _CHECKSUMS_FILE: 4 * num_images}
        self.folder = _claim_folder(Path(directory).expanduser(), {**key, "shape": list(self._shape)}, sizes)
        self._open()

    def _open(self) -> None:
        self._images = torch.from_numpy(self._map(_IMAGES_FILE, np.dtype("u1"), self._shape))
        self._checksums = self._map(_CHECKSUMS_FILE, np.dtype("<u4"), self._shape[:1])
        # Unbuffered, and written to by place, so that forked workers may share them.
        self._image_file, self._checksum_file = (
            (self.folder / name).open("r+b", buffering=0) for name in (_IMAGES_FILE, _CHECKSUMS_FILE)
        )

    def _map(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
        path, expected = self.folder / name, math.prod(shape) * dtype.itemsize
        size = path.stat().st_size if path.is_file() else 0
        # Of a file that is too short, NumPy would make a longer one.
        if size != expected:
            raise ValueError(
                f"{path} has {size} bytes instead of {expected}: it was cut, or is of another program; delete "
                f"{self.folder}, and its images are decoded anew"
            )
        return np.memmap(path, dtype, mode="r+", shape=shape)

    def _fill(self, rows: torch.Tensor, load: Callable[[torch.Tensor], torch.Tensor]) -> None:
        missing = [row for row in rows.tolist() if not self._is_whole(row)]
        if not missing:
            return
        for row, image in zip(missing, load(torch.tensor(missing)).numpy(), strict=True):
            content = image.tobytes()
            self._write(self._image_file, row * len(content), content)
            self._write(self._checksum_file, 4 * row, _checksum(content).to_bytes(4, "little"))

    def _is_whole(self, row: int) -> bool:
        stored = int(self._checksums[row])
        return stored != 0 and stored == _checksum(self._images[row].numpy())

    def _write(self, file: BinaryIO, place: int, content: bytes) -> None:
        # Storing into the mapping would end the process by a signal where the disk is full.
        try:
            while content:
                written = os.pwrite(file.fileno(), content, place)
                content, place = content[written:], place + written
        except OSError as error:
            kept = np.count_nonzero(self._checksums)
            raise OSError(
                error.errno,
                f"{file.name} cannot be written ({error.strerror}). {kept} of {len(self._checksums)} images are there "
                "and stay; make room, or give another `image_cache`, and start again",
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        # Workers that are not forked map the files themselves.
        opened = ("_images", "_checksums", "_image_file", "_checksum_file")
        return {name: value for name, value in vars(self).items() if name not in opened}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()


def _checksum(content: Any) -> int:
    """CRC-32 of an image; never 0, which is what a place holds that was not written yet."""
    return zlib.crc32(content) or 1


def _claim_folder(directory: Path, key: Mapping[str, Any], sizes: Mapping[str, int]) -> Path:
    if directory.is_file():
        raise ValueError(f"`image_cache` is the file {directory}; give a folder")
    text = json.dumps(key, indent=2, sort_keys=True)
    folder = directory / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not folder.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        _check_room(directory, sum(sizes.values()))
        _make_folder(folder, text, sizes)
    return folder


def _check_room(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{directory} needs {needed / 1e6:.1f} MB for decoded images, and {free / 1e6:.1f} MB are free; make "
            "room, give another `image_cache`, or leave it out",
        )


def _make_folder(folder: Path, key: str, sizes: Mapping[str, int]) -> None:
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir()
    try:
        (partial / _KEY_FILE).write_text(key + "\n", encoding="utf-8")
        for name, size in sizes.items():
            with (partial / name).open("wb") as file:
                # Zeros that take no room until they are written over.
                file.truncate(size)
        os.rename(partial, folder)
    except OSError:
        # Another process may have been faster, and its folder is as good.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
