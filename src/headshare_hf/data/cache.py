"""Decoded images in memory that all workers of a data loader share."""

import contextlib
import math
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import torch


# What a container may have, of both versions of control groups.
_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class ImageCache:
    """
    Images that are decoded when they are first asked for, and kept. See [`MemoryImageCache`] and [`MappedImageCache`].

    Workers see what others have kept, so that an image is decoded once however many of them there are.

    Args:
        num_images (`int`): Number of images.
    """

    # All images, `uint8` of shape `(num_images, num_channels, height, width)`.
    _images: torch.Tensor

    def __init__(self, num_images: int) -> None:
        self._known = shared_bytes(num_images)

    def read(self, rows: torch.Tensor, load: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """
        Args:
            rows (`torch.Tensor` of `int64` and shape `(batch_size,)`): Numbers of the images.
            load (`Callable`): Called with the rows that are not there yet; returns their images.

        Returns:
            `torch.Tensor`: A copy of shape `(batch_size, num_channels, height, width)`.
        """
        unknown = rows[self._known[rows] == 0]
        if len(unknown):
            self._fill(unknown, load)
            # Last, so that another worker never takes an unfinished image. Two that load the same one write the same.
            self._known[unknown] = 1
        return self._images[rows]

    def _fill(self, rows: torch.Tensor, load: Callable[[torch.Tensor], torch.Tensor]) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not implement _fill")


class MemoryImageCache(ImageCache):
    """
    [`ImageCache`] in memory, which is taken only as it is filled.

    Args:
        num_images (`int`): Number of images.
        image_shape (`tuple[int, int, int]`): Channels, height and width.

    Raises:
        ValueError: The images are larger than [`available_memory`].
    """

    def __init__(self, num_images: int, image_shape: tuple[int, int, int]) -> None:
        needed = num_images * math.prod(image_shape)
        available = available_memory()
        if needed > available:
            raise ValueError(
                f"{num_images} decoded images take {needed / 2**30:.1f} GiB and this process may have "
                f"{available / 2**30:.1f} GiB; give `image_cache`, a folder on a disk, or pass cache_images=False"
            )
        super().__init__(num_images)
        self._images = shared_bytes(needed).view(num_images, *image_shape)

    def _fill(self, rows: torch.Tensor, load: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._images[rows] = load(rows)


def available_memory() -> int:
    """
    Bytes of memory that a process can have at most: those of the machine, or fewer if it is in a container, divided by the
    training processes on it, of which each keeps the images.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in _CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            # "max" where there is no limit.
            total = min(total, int(limit.read_text()))
    return total // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def shared_bytes(size: int) -> torch.Tensor:
    """
    Zeros in memory that worker processes share, `uint8` of shape `(size,)`.

    It is an anonymous mapping, which forked workers inherit: `Tensor.share_memory_` would need as much room in
    /dev/shm, which is 64 MB in most containers. Where workers are spawned, PyTorch moves the tensor to its own shared
    memory when it sends the first worker its copy.
    """
    return torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8)
