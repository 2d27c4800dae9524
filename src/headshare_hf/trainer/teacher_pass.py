"""The one pass of a teacher over a data set that fills its cache, by all processes, resumable."""

import fcntl
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from ..evaluation.processes import broadcast, on_main_process
from ..evaluation.rounds import compute_rows
from .teacher_rows import RowShape, TeacherCacheError, TeacherRows, TeacherRowsFolder


logger = logging.getLogger(__name__)

_WAIT_SECONDS = 1.0


class TeacherPass(NamedTuple):
    """
    How the rows of a data set are computed.

    Attributes:
        shape ([`RowShape`]): Of all rows.
        prepare (`Callable`): Gets the teacher ready, where there is anything to compute. What it returns makes rows
            `(batch_size, width)` of images `(batch_size, num_channels, height, width)`.
        images (`Any`): Map-style, with all views of an image as `pixel_values` of an item.
        accelerator (`accelerate.Accelerator`): Knows the processes.
        batch_size (`int`): Images and views at a time in every process.
        num_workers (`int`): Processes that decode images, for every process that computes.
        progress (`bool`): Whether the main process shows a bar.
    """

    shape: RowShape
    prepare: Callable[[], Callable[[torch.Tensor], torch.Tensor]]
    images: Any
    accelerator: Accelerator
    batch_size: int
    num_workers: int = 0
    progress: bool = True

    def fill_and_open(self, folder: TeacherRowsFolder | None) -> TeacherRows:
        """
        Computes the rows that a folder lacks, and opens it. Every process has to call this.

        Args:
            folder ([`TeacherRowsFolder`], *optional*): In the main process; the others have none.

        Raises:
            TeacherCacheError: There is no room, a row is not finite, or a file cannot be written or read.
        """
        path = broadcast(self.accelerator, None if folder is None else folder.folder)
        if self._missing(folder):
            with _alone(folder, self.accelerator):
                # Another run may have filled it while this one waited.
                missing = self._missing(folder)
                on_main_process(self.accelerator, lambda: _check_room(Path(str(path)), self.shape, missing))
                if missing:
                    self._fill(folder, missing)
        return TeacherRows(Path(str(path)), self.shape)

    def _missing(self, folder: TeacherRowsFolder | None) -> list[range]:
        return broadcast(self.accelerator, [] if folder is None else folder.missing())

    def _fill(self, folder: TeacherRowsFolder | None, missing: list[range]) -> None:
        left, found = list(missing), []
        with self._bar(missing) as bar:
            for block, rows in self._blocks(missing):
                found.append(_storable(rows, block, self.shape.dtype))
                bar.update(len(block))
                if block.stop == left[0].stop:
                    write = partial(_write, folder, left.pop(0), np.concatenate(found))
                    found = []
                    on_main_process(self.accelerator, write)

    def _blocks(self, missing: list[range]) -> Iterator[tuple[range, np.ndarray]]:
        images_at_a_time = max(1, self.batch_size // self.shape.views)
        compute = _every_view(self.prepare(), self.shape)
        return compute_rows(compute, self.images, missing, self.accelerator, images_at_a_time, self.num_workers)

    def _bar(self, missing: list[range]) -> tqdm:
        return tqdm(
            total=self.shape.images,
            initial=self.shape.images - sum(map(len, missing)),
            desc="teacher cache",
            unit="images",
            disable=None if self.progress and self.accelerator.is_main_process else True,
        )


@contextmanager
def _alone(folder: TeacherRowsFolder | None, accelerator: Accelerator) -> Iterator[None]:
    """Keeps other runs from filling the same folder. The lock of a process that is killed is gone with it."""
    handle = None if folder is None else (folder.folder / "lock").open("w")
    told = False
    try:
        while not broadcast(accelerator, on_main_process(accelerator, lambda: _try_lock(handle))):
            if handle is not None and not told:
                logger.warning("another run is filling %s; waiting for it", Path(handle.name).parent)
                told = True
            # Short waits: the other processes would give up in a single long one.
            time.sleep(_WAIT_SECONDS)
        yield
    finally:
        if handle is not None:
            handle.close()


def _try_lock(handle: Any) -> bool:
    """
    Raises:
        TeacherCacheError: The file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise TeacherCacheError(
            f"{handle.name} cannot be locked ({error}): the file system has no locks, or is mounted without them; give a "
            "`teacher_cache` on another one"
        ) from error
    return True


def _check_room(folder: Path, shape: RowShape, missing: list[range]) -> None:
    needed, free = sum(map(len, missing)) * shape.views * shape.row_bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise TeacherCacheError(
            f"{folder} needs {needed / 1e6:.1f} MB for {shape.views} views of {shape.images} images of {shape.row_bytes} "
            f"bytes each, and {free / 1e6:.1f} MB are free; make room, give another `teacher_cache`, or set "
            "teacher_cache_dtype='float16'"
        )


def _every_view(
    run: Callable[[torch.Tensor], torch.Tensor], shape: RowShape
) -> Callable[[torch.Tensor], torch.Tensor]:
    """From all views of images `(batch_size, num_views, ...)` to their rows `(batch_size, num_views, width)`."""
    checked = False

    def compute(pixels: torch.Tensor) -> torch.Tensor:
        nonlocal checked
        rows = run(pixels.flatten(0, 1))
        if not checked:
            # All of them again: for fewer images a device may take other kernels, which round otherwise.
            _check_rows(rows, run(pixels.flatten(0, 1)), shape.width)
        checked = True
        return rows.unflatten(0, pixels.shape[:2])

    return compute


def _check_rows(rows: torch.Tensor, again: torch.Tensor, width: int) -> None:
    if rows.shape[1:] != (width,):
        raise TeacherCacheError(
            f"the teacher gives outputs of shape {tuple(rows.shape)}, but {width} numbers are expected of an image; its "
            "configuration and its network do not belong together"
        )
    if not torch.allclose(rows, again, rtol=1e-2, atol=1e-2, equal_nan=True):
        raise TeacherCacheError(
            "the teacher says something else when it sees the same images again, so that it cannot be stored; leave out "
            "`teacher_cache`, or take what is random out of the teacher"
        )


def _storable(rows: np.ndarray, images: range, dtype: str) -> np.ndarray:
    """
    The rows in the type that is stored.

    Raises:
        TeacherCacheError: One is not finite; names the image.
    """
    with np.errstate(over="ignore"):
        stored = rows.astype(dtype)
    bad = np.argwhere(~np.isfinite(stored).all(axis=2))
    if not len(bad):
        return stored
    image, view = bad[0]
    remedy = "it does not fit into float16; set teacher_cache_dtype='float32'"
    if not np.isfinite(rows[image, view]).all():
        remedy = "look at this image, or let the teacher compute with teacher_precision='float32'"
    raise TeacherCacheError(
        f"what the teacher says of image {images[image]} of the training set (view {view}) is not finite as {dtype}: {remedy}"
    )


def _write(folder: TeacherRowsFolder | None, part: range, rows: np.ndarray) -> None:
    if folder is not None:
        folder.write(part, rows)
