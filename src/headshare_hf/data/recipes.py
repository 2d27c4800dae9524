"""Augmentation recipes of torchvision and timm for bigger images: each starts with a random crop of the image."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
from timm.data import create_transform
from torchvision.transforms import InterpolationMode, v2

from .randomness import random_bits, seeded_generators
from .transforms import BATCH_AUGMENTATIONS


Recipe = Callable[[PIL.Image.Image], PIL.Image.Image]

TORCHVISION_POLICIES: dict[str, type] = {
    "torchvision/randaugment": v2.RandAugment,
    "torchvision/trivialaugment": v2.TrivialAugmentWide,
    "torchvision/autoaugment": v2.AutoAugment,
}

_RECIPE = 3


def augmentation_names() -> list[str]:
    """Every augmentation; `timm/` takes any string that timm's `auto_augment` argument takes."""
    return [*BATCH_AUGMENTATIONS, "random_resized_crop", *TORCHVISION_POLICIES, "timm/rand-m9-mstd0.5"]


class RecipeAugmentation:
    """
    A third-party recipe, image by image, with the random generators seeded for each image.

    Args:
        name (`str`):
            `"random_resized_crop"` (8 to 100 % of the area, and a flip), the same followed by
            `"torchvision/randaugment"`, `"torchvision/trivialaugment"` or `"torchvision/autoaugment"`, or
            `"timm/<config>"`, which is timm's training transform with that `auto_augment`, e.g.
            `"timm/rand-m9-mstd0.5"`.
        size (`tuple[int, int]`): Height and width, in pixels, of the result.
        processor (`Any`): Says how to interpolate, and timm what color to fill with.
        seed (`int`): See [`random_bits`].

    Raises:
        ValueError: The name is unknown here or to timm.
    """

    def __init__(self, name: str, size: tuple[int, int], processor: Any, seed: int) -> None:
        self.seed = seed
        if name.startswith("timm/"):
            self._recipe = _timm_recipe(name.removeprefix("timm/"), size, processor)
        else:
            self._recipe = _torchvision_recipe(name, size, processor)

    def __call__(self, images: Sequence[PIL.Image.Image], indices: np.ndarray, epoch: int) -> list[PIL.Image.Image]:
        """
        Args:
            images (`Sequence[PIL.Image.Image]`): RGB images of any size.
            indices (`np.ndarray` of shape `(batch_size,)`): Their positions in the data set.
            epoch (`int`): Number of the pass over the data.

        Returns:
            `list[PIL.Image.Image]`: RGB images of the size given at construction.
        """
        seeds = random_bits(self.seed, epoch, indices, _RECIPE).tolist()
        result = []
        with seeded_generators() as seed_all:
            for image, seed in zip(images, seeds, strict=True):
                seed_all(seed)
                result.append(self._recipe(image))
        return result


def _interpolation(processor: Any) -> str:
    return PIL.Image.Resampling(int(processor.resample)).name.lower()


def _torchvision_recipe(name: str, size: tuple[int, int], processor: Any) -> Recipe:
    if name != "random_resized_crop" and name not in TORCHVISION_POLICIES:
        close = difflib.get_close_matches(name, augmentation_names(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise ValueError(f"unknown augmentation {name!r}; {hint}all of them: {', '.join(augmentation_names())}")
    crop = v2.RandomResizedCrop(size, interpolation=InterpolationMode(_interpolation(processor)))
    policy = [TORCHVISION_POLICIES[name]()] if name in TORCHVISION_POLICIES else []
    return v2.Compose([crop, v2.RandomHorizontalFlip(), *policy])


def _timm_recipe(config: str, size: tuple[int, int], processor: Any) -> Recipe:
    # timm fills with the mean color, for which it needs RGB.
    mean = tuple(processor.image_mean) * (3 // len(processor.image_mean))
    if getattr(processor, "channel_order", "rgb") == "bgr":
        mean = mean[::-1]
    try:
        first, second, _ = create_transform(
            size,
            is_training=True,
            separate=True,
            auto_augment=config,
            interpolation=_interpolation(processor),
            mean=mean,
        )
    except (AssertionError, KeyError, ValueError) as error:
        raise ValueError(f"timm does not know the augmentation {config!r} of 'timm/{config}': {error}") from error
    return v2.Compose([first, second])
