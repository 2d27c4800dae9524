"""From rows of a data set to batches of uint8 images at the size that the network reads."""

import logging
from typing import Any

import numpy as np
import PIL.Image
import torch
from tqdm.auto import tqdm

from .cache import ImageCache
from .decoding import CorruptImageError, decode_row
from .images import LabeledImages
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
    for name in ("include_top", "rescale_offset", "do_flip_channel_order"):
        if getattr(processor, name, False):
            raise ValueError(
                f"{type(processor).__name__} has `{name}`, which batches are not prepared with; use a HeadShareImageProcessor "
                "with the statistics that it amounts to"
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


def prepare_images(images: list[PIL.Image.Image], processor: Any, **options: Any) -> torch.Tensor:
    """
    All that an image processor does before it rescales: channels, size, channel order.

    Args:
        images (`list[PIL.Image.Image]`): Images of any size.
        processor (`Any`): The image processor.
        options: Further arguments of its call.

    Returns:
        `torch.Tensor` of `uint8` and shape `(batch_size, num_channels, height, width)`.
    """
    if not options and _are_ready(images, processor):
        return _stack(images, reverse=processor.channel_order == "bgr")
    return processor(
        images=images,
        do_convert_rgb=len(processor.image_mean) == 3,
        do_rescale=False,
        do_normalize=False,
        return_tensors="pt",
        **options,
    )["pixel_values"]


def _are_ready(images: list[PIL.Image.Image], processor: Any) -> bool:
    """Whether a HeadShareImageProcessor would only stack these: aligned faces, for which its steps take 50 us each."""
    if not hasattr(processor, "channel_order") or len(processor.image_mean) != 3 or processor.do_center_crop:
        return False
    height, width = working_size(processor)
    return all(
        image.mode == "RGB" and image.size == (width, height) and "transparency" not in image.info for image in images
    )


def _stack(images: list[PIL.Image.Image], reverse: bool) -> torch.Tensor:
    result = np.empty((len(images), 3, images[0].height, images[0].width), dtype=np.uint8)
    for target, image in zip(result, images, strict=True):
        target[:] = np.asarray(image).transpose(2, 0, 1)[:: -1 if reverse else 1]
    return torch.from_numpy(result)


class ImageReader:
    """
    Decodes rows and runs the deterministic part of an image processor.

    Args:
        images ([`LabeledImages`]): The images.
        processor (`Any`): The image processor.
    """

    def __init__(self, images: LabeledImages, processor: Any) -> None:
        self._images, self._processor = images, processor

    def decode(self, rows: torch.Tensor) -> list[PIL.Image.Image]:
        """
        Args:
            rows (`torch.Tensor` of `int64` and shape `(batch_size,)`): Numbers of the rows.

        Raises:
            CorruptImageError: One cannot be decoded.
        """
        wanted = rows.tolist()
        images = self._images
        return [
            decode_row(entry, images.split, images.number(row))
            for entry, row in zip(images.entries(wanted), wanted, strict=True)
        ]

    def prepare(self, images: list[PIL.Image.Image], **options: Any) -> torch.Tensor:
        """
        All that the processor does before it rescales: channels, size, channel order.

        Returns:
            `torch.Tensor` of `uint8` and shape `(batch_size, num_channels, height, width)`.
        """
        return prepare_images(images, self._processor, **options)

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

    @property
    def num_views(self) -> int | None:
        """See [`BatchAugmentation`], as of the following."""
        return self._augmentation.num_views

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        """Images of these rows as they are, `uint8` of shape `(batch_size, num_channels, height, width)`."""
        read = self._reader.read
        return read(rows) if self._cache is None else self._cache.read(rows, read)

    def augment(self, images: torch.Tensor, rows: torch.Tensor, epoch: int) -> torch.Tensor:
        """What was read of these rows, as this epoch shows it; of the same type and shape."""
        return self._augmentation(images, rows.numpy(), epoch)

    def view_numbers(self, rows: torch.Tensor, epoch: int) -> np.ndarray:
        """Which of `num_views` views this epoch shows of each row, `int64` of shape `(batch_size,)`."""
        return self._augmentation.view_numbers(rows.numpy(), epoch)

    def view(self, images: torch.Tensor, rows: torch.Tensor, number: int) -> torch.Tensor:
        """What was read of these rows, in one of `num_views` views; of the same type and shape."""
        return self._augmentation.view(images, number)


class RecipePixels:
    """
    Images augmented one by one, starting from the whole image in its file.

    Args:
        reader ([`ImageReader`]): Decodes.
        recipe ([`RecipeAugmentation`]): What is done to an image.
    """

    def __init__(self, reader: ImageReader, recipe: RecipeAugmentation) -> None:
        self._reader, self._recipe = reader, recipe

    def read(self, rows: torch.Tensor) -> list[PIL.Image.Image]:
        """Images of these rows at their own size."""
        return [self._reader.to_rgb(image) for image in self._reader.decode(rows)]

    def augment(self, images: list[PIL.Image.Image], rows: torch.Tensor, epoch: int) -> torch.Tensor:
        """
        What was read of these rows, as this epoch shows it, `uint8` of shape `(batch_size, num_channels, height, width)`.
        """
        augmented = self._recipe(images, rows.numpy(), epoch)
        return self._reader.prepare(augmented, do_resize=False, do_center_crop=False)


def drop_corrupt(images: LabeledImages) -> tuple[LabeledImages, int]:
    """
    Decodes every image once and keeps those that can be.

    Returns:
        `tuple[LabeledImages, int]`: What is left, and how many images are not.

    Raises:
        ValueError: None can be decoded.
    """
    split, keep, errors = images.split, [], []
    for row in tqdm(range(len(images)), desc="checking images", disable=None):
        try:
            decode_row(images.entries([row])[0], split, images.number(row))
            keep.append(row)
        except CorruptImageError as error:
            errors.append(error)
    if not keep:
        raise ValueError(f"no image of split {split!r} can be decoded; the first: {errors[0]}")
    if errors:
        logger.warning(
            "left out %d of %d images of split %r; the first: %s", len(errors), len(images), split, errors[0]
        )
    return images.select(keep), len(errors)
