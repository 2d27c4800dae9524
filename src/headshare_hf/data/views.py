"""Views: the forms in which training shows an image, where they are few enough to be gone through."""

from collections.abc import Sequence
from typing import Any

import torch

from .batched import BatchedImages
from .pixels import BatchPixels, RecipePixels
from .transforms import Normalizer


class Views:
    """
    Which view of an image an epoch shows, and all views of it.

    Without an augmentation there is one view, and with a flip alone there are two. Any other augmentation makes a new
    one in every epoch, unless it is repeated: view v is then what epoch v shows.

    Args:
        pixels ([`BatchPixels`] or [`RecipePixels`]): Reads and augments.
        name (`str`): Of the augmentation, for messages.
        repeated (`int`, *optional*): After how many epochs the augmentations come again.

    Attributes:
        count (`int`, *optional*): Number of views of an image; `None` where every epoch has its own.

    Raises:
        ValueError: `repeated` is not positive, or there are one or two views anyway.
    """

    def __init__(self, pixels: BatchPixels | RecipePixels, name: str, repeated: int | None = None) -> None:
        self._pixels, self._name, self._repeated = pixels, name, repeated
        self._fixed = pixels if isinstance(pixels, BatchPixels) and pixels.num_views is not None else None
        self.count = repeated if self._fixed is None else self._fixed.num_views
        if repeated is not None and repeated < 1:
            raise ValueError(f"`augmentation_views` is {repeated}; it must be at least 1")
        if repeated is not None and self._fixed is not None:
            raise ValueError(
                f"`augmentation_views` has no use with augmentation {name!r}, which makes no more than {self.count} of an "
                "image anyway; leave it out"
            )

    def __call__(self, rows: torch.Tensor, epoch: int) -> torch.Tensor:
        """Images of these rows in this epoch, `uint8` of shape `(batch_size, num_channels, height, width)`."""
        return self._augment(self._pixels.read(rows), rows, self._number(epoch))

    def numbers(self, rows: torch.Tensor, epoch: int) -> torch.Tensor:
        """Number of the view of each of these rows in this epoch, `int64` of shape `(batch_size,)`."""
        if self._fixed is not None:
            return torch.from_numpy(self._fixed.view_numbers(rows, epoch))
        return torch.full((len(rows),), self._number(epoch))

    def check_count(self) -> int:
        """
        Returns `count`.

        Raises:
            ValueError: There is no such number.
        """
        if self.count is None:
            raise ValueError(
                f"augmentation {self._name!r} makes another image in every epoch; set `augmentation_views` (of a recipe: "
                "`data.augmentation_views`), after which many epochs its images come again, or use 'none' or 'flip'"
            )
        return self.count

    def every(self, rows: torch.Tensor) -> torch.Tensor:
        """All views of these rows, `uint8` of shape `(batch_size, num_views, num_channels, height, width)`."""
        images = self._pixels.read(rows)
        make: Any = self._augment if self._fixed is None else self._fixed.view
        return torch.stack([make(images, rows, number) for number in range(self.check_count())], dim=1)

    def _augment(self, images: Any, rows: torch.Tensor, epoch: int) -> torch.Tensor:
        return self._pixels.augment(images, rows, epoch)

    def _number(self, epoch: int) -> int:
        return epoch if self._repeated is None else epoch % self._repeated


class EveryView(BatchedImages):
    """
    All views of every image, in the order of a data set, normalized.

    Args:
        views ([`Views`]): Of that data set.
        normalize ([`Normalizer`]): Likewise.
        num_images (`int`): Its length.

    Raises:
        ValueError: Every epoch has its own view.
    """

    def __init__(self, views: Views, normalize: Normalizer, num_images: int) -> None:
        views.check_count()
        self._views, self._normalize, self._num_images = views, normalize, num_images

    def __len__(self) -> int:
        return self._num_images

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """
        A batch `{"pixel_values": ...}`, `float32` of shape `(batch_size, num_views, num_channels, height, width)`.
        """
        pixels = self._views.every(torch.as_tensor(indices, dtype=torch.int64))
        return {"pixel_values": self._normalize(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])}
