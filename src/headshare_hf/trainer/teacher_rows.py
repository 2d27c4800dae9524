"""What a teacher said of every view of every image, in files that are read without being loaded."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..evaluation.part_folder import PartFolder, part_ranges


_NAME = "teacher"
_PART_BYTES, _PART_IMAGES = 2**25, 4096


class TeacherCacheError(ValueError):
    """A teacher cache cannot be made, written or used."""


class RowShape(NamedTuple):
    """
    Attributes:
        images (`int`): Number of images.
        views (`int`): Views of each.
        width (`int`): Numbers of a view: those of an embedding, or one for each class.
        dtype (`str`): `"float32"` or `"float16"`.
    """

    images: int
    views: int
    width: int
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one view of an image."""
        return self.width * np.dtype(self.dtype).itemsize

    @property
    def part_images(self) -> int:
        """Images in a file: at most 4096, and 32 MB."""
        return max(1, min(_PART_IMAGES, _PART_BYTES // (self.views * self.row_bytes)))

    @property
    def parts(self) -> list[range]:
        """The images of every file."""
        return part_ranges(self.images, self.part_images)


class TeacherRowsFolder(PartFolder):
    """
    The files as they are written: for each range of images one of shape `(num_views, num_images, width)`.

    Args:
        folder (`Path`): Where to.
        key (`Mapping[str, Any]`): Everything that the rows depend on.
        shape ([`RowShape`]): Of all rows.

    Raises:
        ValueError: The folder holds something else.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], shape: RowShape) -> None:
        super().__init__(folder, key, shape.images, shape.part_images, "teacher outputs")
        self._shape = shape

    def write(self, part: range, rows: np.ndarray) -> None:
        """
        Writes one file, whole or not at all.

        Args:
            part (`range`): Which images.
            rows (`np.ndarray` of shape `(len(part), num_views, width)`): Of these images.

        Raises:
            TeacherCacheError: It cannot be written, e.g. because the disk is full. What is whole stays.
        """
        path, partial = self.file(part), self.file(part).with_suffix(".partial")
        try:
            save_file({_NAME: np.ascontiguousarray(rows.swapaxes(0, 1), dtype=self._shape.dtype)}, partial)
            # A rename may reach the disk before the contents do.
            with partial.open("rb") as handle:
                os.fsync(handle.fileno())
            os.replace(partial, path)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            missing = len(self.missing())
            raise TeacherCacheError(
                f"{path} cannot be written ({error}). {len(self.parts) - missing} of {len(self.parts)} files are whole and "
                f"stay; the others take {missing * len(self.parts[0]) * self._shape.views * self._shape.row_bytes / 1e6:.0f}"
                " MB. Make room, or give another `teacher_cache`, and start again: what is there is not made anew"
            ) from error


class TeacherRows:
    """
    Rows of a complete folder, read from memory-mapped files: only what is asked for is read from the disk, and all
    processes and workers of a machine share it.

    Args:
        folder (`Path`): Of the files.
        shape ([`RowShape`]): Of all rows.

    Raises:
        TeacherCacheError: A file is missing, damaged, or of another shape.
    """

    def __init__(self, folder: Path, shape: RowShape) -> None:
        self.folder, self.shape = folder, shape
        self._lengths = np.array([len(part) for part in shape.parts])
        self._open()

    def _open(self) -> None:
        parts = self.shape.parts
        paths = [self.folder / f"rows-{part.start:010d}.safetensors" for part in parts]
        self._buffers = [self._map(path, len(part)) for path, part in zip(paths, parts, strict=True)]

    def _map(self, path: Path, images: int) -> memoryview:
        remedy = "delete this file, and its rows are made anew"
        try:
            with safe_open(path, framework="pt") as file:
                tensor = file.get_tensor(_NAME)
        except FileNotFoundError as error:
            raise TeacherCacheError(
                f"{path} does not exist in this process; `teacher_cache` must be on a file system that all machines share"
            ) from error
        except SafetensorError as error:
            raise TeacherCacheError(f"{path} cannot be read ({error}); {remedy}") from error
        expected = (self.shape.views, images, self.shape.width)
        if tuple(tensor.shape) != expected or tensor.dtype != getattr(torch, self.shape.dtype):
            raise TeacherCacheError(
                f"{path} has {tensor.dtype} of shape {tuple(tensor.shape)} instead of {self.shape.dtype} of shape "
                f"{expected}; {remedy}"
            )
        return memoryview(tensor.numpy().reshape(-1).view(np.uint8))

    def read(self, index: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
        """
        Args:
            index (`torch.Tensor` of `int64` and shape `(batch_size,)`): Numbers of images.
            view (`torch.Tensor` of `int64` and shape `(batch_size,)`): The view of each.

        Returns:
            `torch.Tensor`: A copy of shape `(batch_size, width)`.

        Raises:
            TeacherCacheError: There is no such image or view.
        """
        images, views = index.numpy(), view.numpy()
        self._check(images, views)
        shards, places = np.divmod(images, self.shape.part_images)
        size = self.shape.row_bytes
        starts = (views * self._lengths[shards] + places) * size
        # Joining slices of bytes took 0.3 microseconds a row of 1 kB, and copying row by row with NumPy 0.7.
        pieces = [
            self._buffers[s][start : start + size] for s, start in zip(shards.tolist(), starts.tolist(), strict=True)
        ]
        rows = torch.frombuffer(bytearray().join(pieces), dtype=getattr(torch, self.shape.dtype))
        return rows.view(len(images), self.shape.width)

    def _check(self, images: np.ndarray, views: np.ndarray) -> None:
        for name, values, count in (("image", images, self.shape.images), ("view", views, self.shape.views)):
            if values.min() < 0 or values.max() >= count:
                wrong = values[(values < 0) | (values >= count)][0]
                raise TeacherCacheError(
                    f"the training set gave {name} {wrong}, but {self.folder} has {name}s 0 to {count - 1}; the data set "
                    "must not change while it is trained on"
                )

    def __getstate__(self) -> dict[str, Any]:
        # Workers that are not forked map the files themselves.
        return {name: value for name, value in vars(self).items() if name != "_buffers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()
