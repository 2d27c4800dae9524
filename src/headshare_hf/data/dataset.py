"""The data set that a training loop reads: batches of normalised images, augmented all at once."""

import os
from collections.abc import Sequence
from typing import Any

import PIL.Image
import torch
from torch.utils.data import default_collate

from .batched import BatchedImages
from .cache import ImageCache, MemoryImageCache, shared_bytes
from .images import LabeledImages, LabeledSplit, as_images
from .mapped_cache import MappedImageCache
from .mapped_cache_key import files_digest, image_cache_key
from .pixels import BatchPixels, ImageReader, RecipePixels, drop_corrupt, working_size
from .recipes import RecipeAugmentation
from .transforms import BATCH_AUGMENTATIONS, BatchAugmentation, Normalizer
from .views import EveryView, Views


class ImageClassificationDataset(BatchedImages):
    """
    Images of one split, as an image processor prepares them, and augmented for training.

    A batch is the dict `{"pixel_values": float32 (batch_size, num_channels, height, width), "labels": int64
    (batch_size,)}`. Without augmentation `pixel_values` are what the processor itself returns.

    Args:
        dataset (`datasets.Dataset` or [`RecordImages`]): What [`load_splits`] returns.
        processor (`Any`): An image processor of transformers, e.g. [`HeadShareImageProcessor`].
        augmentation (`str`, *optional*):
            `"none"`, `"flip"`, `"crop"` (black padding of 4 pixels), `"crop_flip"` or `"crop_white"` (white padding,
            for ink on paper), which work on whole batches of
            prepared images; or a name of [`RecipeAugmentation`], which works on the images as they are in their files.
        training (`bool`, *optional*, defaults to `False`): Whether there is any augmentation.
        seed (`int`, *optional*, defaults to 0):
            With the epoch and the index of an image it determines its augmentation, and nothing else does: neither the
            batch size nor the number of workers or processes.
        augmentation_views (`int`, *optional*):
            After how many epochs the augmentations of an image come again, so that there is a number of views of it that
            a teacher cache can hold. Not for `"none"` and `"flip"`, which have one view and two anyway.
        with_index (`bool`, *optional*, defaults to `False`): Add `"index": int64 (batch_size,)` to a batch.
        with_view (`bool`, *optional*, defaults to `False`):
            Add `"view": int64 (batch_size,)` to a batch, a number below `num_views`.
        cache_images (`bool`, *optional*, defaults to `True`):
            Keep the prepared images in memory, shared between workers. Recipes start from the whole file, so that with
            one there is nothing to keep.
        image_cache (`str` or `os.PathLike`, *optional*):
            Folder to keep the prepared images in, whatever `cache_images` says: each data set, split and size below a
            name of its own. They are read from memory-mapped files, which all processes of a machine share and later
            runs find there.
        skip_corrupt (`bool`, *optional*, defaults to `False`):
            Decode every image once and leave out those that cannot be decoded. Their number is in `num_corrupt`.

    Attributes:
        labels (`torch.Tensor` of `int64` and shape `(num_images,)`): Class of every image.
        preparation (`dict[str, str]`): What happens to the images: augmentation, its seed, and the image processor.
        num_views (`int`, *optional*): How many views of an image there are; `None` where every epoch has its own.
        view_settings (`dict[str, str]`): The part of `preparation` that the views of an image depend on.
        fingerprint (`str`): Differs where there are other images, as far as that shows without reading them.
        label_names (`list[str]`): Name of every class.
        num_corrupt (`int`): How many images were left out.

    Raises:
        ValueError: The columns or the processor do not fit, the augmentation or `image_cache` is unknown or without
            effect, the images do not fit in memory, or a file of `image_cache` was cut.
        OSError: There is no room in `image_cache`, also where that shows later.
        CorruptImageError: When an image is read that cannot be decoded; names split, row and file.
    """

    def __init__(
        self,
        dataset: LabeledSplit,
        processor: Any,
        *,
        augmentation: str | None = None,
        training: bool = False,
        seed: int = 0,
        augmentation_views: int | None = None,
        with_index: bool = False,
        with_view: bool = False,
        cache_images: bool = True,
        image_cache: str | os.PathLike | None = None,
        skip_corrupt: bool = False,
    ) -> None:
        name = augmentation or "none"
        if name != "none" and not training:
            raise ValueError(f"`augmentation` is {name!r} but `training` is False; leave it out for evaluation")
        images = as_images(dataset)
        images, self.num_corrupt = drop_corrupt(images) if skip_corrupt else (images, 0)
        self.labels = torch.from_numpy(images.labels)
        self.label_names = list(images.label_names)
        self.fingerprint = images.fingerprint
        self._images = images
        self.with_index, self.with_view = with_index, with_view
        # Shared, so that workers that outlive an epoch see the next one.
        self._epoch = shared_bytes(8).view(torch.int64)
        self._reader = ImageReader(images, processor)
        pixels = _pixels(images, self._reader, processor, name, seed, cache_images, image_cache)
        self._views = Views(pixels, name, augmentation_views)
        self._normalize = Normalizer(processor)
        self.num_views = self._views.count
        self.preparation = {"augmentation": name, "seed": str(seed), "processor": str(_settings(processor))}
        if augmentation_views is not None:
            self.preparation["augmentation_views"] = str(augmentation_views)
        # One view or two are the same whatever the seed, which only says when each is shown.
        unused = () if augmentation_views is not None else ("seed",)
        self.view_settings = {key: value for key, value in self.preparation.items() if key not in unused}

    def files_digest(self) -> str | None:
        """See [`files_digest`]: unlike the fingerprint it also differs where an image file was replaced."""
        return files_digest(self._images)

    @property
    def num_classes(self) -> int:
        """Number of classes, with or without images."""
        return len(self.label_names)

    @property
    def id2label(self) -> dict[int, str]:
        """Name of every class by its number."""
        return dict(enumerate(self.label_names))

    def set_epoch(self, epoch: int) -> None:
        """
        Sets the epoch that the augmentation of the next batches depends on, in running workers too.

        Args:
            epoch (`int`): Number of the pass over the data.
        """
        self._epoch[0] = epoch

    def pictures(self, indices: Sequence[int]) -> list[PIL.Image.Image]:
        """
        Images as they are in their files, decoded and turned upright, to look at or to give to an image processor.

        Args:
            indices (`Sequence[int]`): Numbers of the images.
        """
        return self._reader.decode(torch.as_tensor(list(indices), dtype=torch.int64))

    def unaugmented(self, indices: Sequence[int]) -> torch.Tensor:
        """
        Images at their final size as no epoch changes them, `uint8` of shape `(batch_size, num_channels, height, width)`.

        Args:
            indices (`Sequence[int]`): Numbers of the images.
        """
        return self._reader.read(torch.as_tensor(indices, dtype=torch.int64))

    def every_view(self) -> EveryView:
        """
        All views of every image, in the order of this data set.

        Raises:
            ValueError: Every epoch has its own view, see `augmentation_views`.
        """
        return EveryView(self._views, self._normalize, len(self))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """See [`BatchedImages`]."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        epoch = int(self._epoch)
        batch = {"pixel_values": self._normalize(self._views(rows, epoch)), "labels": self.labels[rows]}
        if self.with_index:
            batch["index"] = rows
        if self.with_view:
            batch["view"] = self._views.numbers(rows, epoch)
        return batch


def _settings(processor: Any) -> dict[str, Any]:
    """What an image processor does, without the names of classes and files."""
    content = processor.to_dict() if hasattr(processor, "to_dict") else vars(processor)
    return {key: value for key, value in sorted(content.items()) if key not in ("auto_map", "processor_class")}


def collate(batch: dict[str, torch.Tensor] | Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """
    A dict of tensors passes as it is; the items of other data sets are stacked.

    Args:
        batch (`dict[str, torch.Tensor]` or `Sequence[dict]`): What `__getitems__` returned, or one dict for each item.
    """
    return batch if isinstance(batch, dict) else default_collate(list(batch))


def _pixels(
    images: LabeledImages,
    reader: ImageReader,
    processor: Any,
    name: str,
    seed: int,
    cache_images: bool,
    image_cache: str | os.PathLike | None,
) -> BatchPixels | RecipePixels:
    size = working_size(processor)
    if name not in BATCH_AUGMENTATIONS:
        recipe = RecipeAugmentation(name, size, processor, seed)
        if image_cache is not None:
            raise ValueError(
                f"`image_cache` has no effect with augmentation {name!r}, which starts from the whole file; leave it out, "
                f"or choose one of {', '.join(BATCH_AUGMENTATIONS)}"
            )
        return RecipePixels(reader, recipe)
    cache = _cache(images, processor, size, image_cache) if cache_images or image_cache is not None else None
    return BatchPixels(reader, BatchAugmentation(BATCH_AUGMENTATIONS[name], seed), cache)


def _cache(
    images: LabeledImages, processor: Any, size: tuple[int, int], directory: str | os.PathLike | None
) -> ImageCache:
    shape = (len(processor.image_mean), *size)
    if directory is None:
        return MemoryImageCache(len(images), shape)
    return MappedImageCache(directory, image_cache_key(images, _settings(processor)), len(images), shape)
