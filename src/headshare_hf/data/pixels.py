"""From rows of a data set to batches of uint8 images at the size that the network reads."""

import logging
from typing import Any

import datasets
import numpy as np
import PIL.Image
import torch
from tqdm.auto import tqdm

from .cache import ImageCache
from .decoding import CorruptImageError, decode_row
from .recipes import RecipeAugmentation
from .transforms import BatchAugmentation


logger = logging.getLogger(__name__)


def working_size(processor: Any) -> tuple[int, int]:
    """
    Height and width, in pixels, that an image processor brings every image to.

    Raises:
        ValueError: It is no image processor with statistics, or images keep different sizes.
    """
    if getattr(processor, "image_mean", None) is None:
        raise ValueError(
            f"{type(processor).__name__} has no `image_mean`; use a HeadShareImageProcessor with the "
            "network's statistics"
        )
    crops = getattr(processor, "do_center_crop", False)
    size = processor.crop_size if crops else processor.size if processor.do_resize else None
    size = dict(size or {})
    if not (size.get("height") and size.get("width")):
        raise ValueError(
            f"the image processor leaves images at different sizes (size={size}); give it a `size` with height and "
            "width, or `do_center_crop=True`"
        )
    return size["height"], size["width"]


class ImageReader:
    """
    Decodes rows and runs the deterministic part of an image processor.

    Args:
        dataset (`datasets.Dataset`):
            With an undecoded column `image`, and `row` where its rows were chosen from others.
        processor (`Any`): The image processor.
    """

    def __init__(self, dataset: datasets.Dataset, processor: Any) -> None:
        self._images = dataset.select_columns(["image"])
        self._numbers = row_numbers(dataset)
        self._split = str(dataset.split)
        self._processor = processor

    def decode(self, rows: torch.Tensor) -> list[PIL.Image.Image]:
        """
        Args:
            rows (`torch.Tensor` of `int64` and shape `(batch_size,)`): Numbers of the rows.

        Raises:
            CorruptImageError: One cannot be decoded.
        """
        wanted = rows.tolist()
        entries = self._images[wanted]["image"]
        return [decode_row(entry, self._split, self._numbers[row]) for entry, row in zip(entries, wanted, strict=True)]

    def prepare(self, images: list[PIL.Image.Image], **options: Any) -> torch.Tensor:
        """
        All that the processor does before it rescales: channels, size, channel order.

        Returns:
            `torch.Tensor` of `uint8` and shape `(batch_size, num_channels, height, width)`.
        """
        return self._processor(
            images=images,
            do_convert_rgb=len(self._processor.image_mean) == 3,
            do_rescale=False,
            do_normalize=False,
            return_tensors="pt",
            **options,
        )["pixel_values"]

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        """[`decode`] and [`prepare`]."""
        return self.prepare(self.decode(rows))

    def to_rgb(self, image: PIL.Image.Image) -> PIL.Image.Image:
        """The image in the colors that the network sees, at its own size, as third-party recipes want it."""
        channels = np.asarray(self._processor.process_image(image, do_convert_rgb=True))
        pixels = np.ascontiguousarray(channels.transpose(1, 2, 0))
        return PIL.Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).convert("RGB")


class BatchPixels:
    """
    Prepared images, from memory where there is a cache, augmented as a batch.

    Args:
        reader ([`ImageReader`]): Decodes.
        augmentation ([`BatchAugmentation`]): What is done to a batch.
        cache ([`ImageCache`], *optional*): Keeps what was decoded.
    """

    def __init__(self, reader: ImageReader, augmentation: BatchAugmentation, cache: ImageCache | None) -> None:
        self._reader, self._augmentation, self._cache = reader, augmentation, cache

    def __call__(self, rows: torch.Tensor, epoch: int) -> torch.Tensor:
        """Images of these rows in this epoch, `uint8` of shape `(batch_size, num_channels, height, width)`."""
        read = self._reader.read
        images = read(rows) if self._cache is None else self._cache.read(rows, read)
        return self._augmentation(images, rows.numpy(), epoch)


class RecipePixels:
    """
    Images augmented one by one, starting from the whole image in its file.

    Args:
        reader ([`ImageReader`]): Decodes.
        recipe ([`RecipeAugmentation`]): What is done to an image.
    """

    def __init__(self, reader: ImageReader, recipe: RecipeAugmentation) -> None:
        self._reader, self._recipe = reader, recipe

    def __call__(self, rows: torch.Tensor, epoch: int) -> torch.Tensor:
        """Images of these rows in this epoch, `uint8` of shape `(batch_size, num_channels, height, width)`."""
        images = [self._reader.to_rgb(image) for image in self._reader.decode(rows)]
        images = self._recipe(images, rows.numpy(), epoch)
        return self._reader.prepare(images, do_resize=False, do_center_crop=False)


def row_numbers(dataset: datasets.Dataset) -> list[int]:
    """Numbers of the rows in the split that they were chosen from."""
    return dataset["row"][:] if "row" in dataset.column_names else list(range(len(dataset)))


def drop_corrupt(dataset: datasets.Dataset) -> tuple[datasets.Dataset, int]:
    """
    Decodes every image once and keeps those that can be.

    Returns:
        `tuple[datasets.Dataset, int]`: What is left, and how many images are not.

    Raises:
        ValueError: None can be decoded.
    """
    split, keep, errors = str(dataset.split), [], []
    entries = zip(row_numbers(dataset), dataset.select_columns(["image"]), strict=True)
    for position, (row, entry) in enumerate(tqdm(entries, total=len(dataset), desc="checking images", disable=None)):
        try:
            decode_row(entry["image"], split, row)
            keep.append(position)
        except CorruptImageError as error:
            errors.append(error)
    if not keep:
        raise ValueError(f"no image of split {split!r} can be decoded; the first: {errors[0]}")
    if errors:
        logger.warning(
            "left out %d of %d images of split %r; the first: %s", len(errors), len(dataset), split, errors[0]
        )
    return dataset.select(keep), len(errors)
