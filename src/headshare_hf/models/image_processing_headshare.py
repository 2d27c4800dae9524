"""The image processor: resize, rescale and normalise images, in the channel order of the weights."""

from typing import Any, ClassVar

import numpy as np
import PIL.Image
import torch
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import ChannelDimension, PILImageResampling
from transformers.processing_utils import ImagesKwargs

from .hub_cache import PROCESSOR_FILE, explained


REFERENCE = "image_processing_headshare.HeadShareImageProcessor"


class HeadShareImageProcessorKwargs(ImagesKwargs, total=False):
    """
    What [`HeadShareImageProcessor`] takes besides the arguments of every transformers image processor.

    Attributes:
        channel_order (`str`): `"rgb"` or `"bgr"`, the order of the channels of `pixel_values`.
    """

    channel_order: str | None


class HeadShareImageProcessor(TorchvisionBackend):
    """
    Turns images into the `pixel_values` that a network was trained with.

    In this order: conversion to RGB (three statistics) or to grayscale (one), `channel_order`, resize, center crop
    (off by default), rescale to [0, 1], normalise. PIL images may have any 8-bit mode; transparency becomes white.

    Args:
        size (`dict[str, int]`, *optional*, defaults to `{"height": 32, "width": 32}`): In pixels.
        crop_size (`dict[str, int]`, *optional*): In pixels; used with `do_center_crop=True`.
        image_mean (`list[float]`, *optional*):
            Means of images in [0, 1], in the order of `channel_order`. One value per channel, three or one. Defaults
            to CIFAR-100's, (0.5071, 0.4867, 0.4408).
        image_std (`list[float]`, *optional*): Likewise; defaults to CIFAR-100's, (0.2675, 0.2565, 0.2761).
        channel_order (`str`, *optional*, defaults to `"rgb"`):
            Order of the channels in `pixel_values`. Images that come in are RGB, so that `"bgr"` reverses them.
        kwargs: Those of every transformers image processor, e.g. `resample`, `do_center_crop`.

    Raises:
        ValueError: `channel_order`, `image_mean` or `image_std` do not fit together, or an image cannot be brought to
            as many channels as there are statistics.

    Example:

    ```python
    >>> import numpy as np
    >>> processor = HeadShareImageProcessor(image_mean=[0.5], image_std=[0.5])
    >>> processor(np.zeros((28, 28, 1), dtype=np.uint8), return_tensors="pt")["pixel_values"].shape
    torch.Size([1, 1, 32, 32])
    ```
    """

    valid_kwargs = HeadShareImageProcessorKwargs
    channel_orders: ClassVar[tuple[str, ...]] = ("rgb", "bgr")

    resample = PILImageResampling.BILINEAR
    size: ClassVar[dict[str, int]] = {"height": 32, "width": 32}
    crop_size: ClassVar[dict[str, int]] = {"height": 32, "width": 32}
    image_mean: ClassVar[list[float]] = [0.5071, 0.4867, 0.4408]
    image_std: ClassVar[list[float]] = [0.2675, 0.2565, 0.2761]
    do_resize = True
    do_center_crop = False
    do_rescale = True
    do_normalize = True
    channel_order = "rgb"

    def _standardize_kwargs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        # Construction and every call pass through here, so that each value is checked wherever it is given.
        kwargs = super()._standardize_kwargs(*args, **kwargs)
        _check_statistics(kwargs["image_mean"], kwargs["image_std"], kwargs["channel_order"])
        return kwargs

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As `BaseImageProcessor.from_pretrained`; where the Hub is not reached, it tells what the cache holds."""
        with explained(pretrained_model_name_or_path, kwargs, PROCESSOR_FILE):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As `BaseImageProcessor.to_dict`, with the reference to the code by its backend."""
        content = super().to_dict()
        if "auto_map" in content:
            # Of a plain name, a pipeline makes that of a video processor, and asks whether its code may be run even
            # where this class is at hand.
            content["auto_map"] = {"AutoImageProcessor": {"torchvision": REFERENCE}}
        return content

    def process_image(self, image: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """
        One image as a tensor of shape `(num_channels, height, width)`, its channels still in the order R, G, B.

        Args:
            image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`): The image.
            args, kwargs: Those of `transformers.TorchvisionBackend.process_image`.
        """
        num_channels = len(kwargs.get("image_mean", self.image_mean))
        if isinstance(image, PIL.Image.Image):
            # Said, not inferred: an image three pixels high would be taken for one with the channels first.
            image, kwargs["input_data_format"] = _pil_to_array(image, num_channels), ChannelDimension.LAST
        kwargs["do_convert_rgb"] = False
        return _to_channels(super().process_image(image, *args, **kwargs), num_channels)

    def _preprocess(self, images: list[torch.Tensor], *args: Any, **kwargs: Any) -> BatchFeature:
        if kwargs.pop("channel_order") == "bgr":
            images = [image.flip(0) for image in images]
        return super()._preprocess(images, *args, **kwargs)


def _check_statistics(mean: Any, std: Any, channel_order: str) -> None:
    for name, values in (("image_mean", mean), ("image_std", std)):
        if not isinstance(values, (list, tuple)) or len(values) not in (1, 3):
            raise ValueError(f"`{name}` is {values}; give a list of three values, or of one for grayscale images")
    if len(mean) != len(std):
        raise ValueError(
            f"`image_mean` has {len(mean)} values and `image_std` {len(std)}; give one of each per channel"
        )
    if min(std) <= 0:
        raise ValueError(f"`image_std` is {std}; every value must be positive")
    allowed = HeadShareImageProcessor.channel_orders if len(mean) == 3 else ("rgb",)
    if channel_order not in allowed:
        raise ValueError(
            f"`channel_order` is {channel_order!r}; allowed with {len(mean)} channels: {', '.join(allowed)}"
        )


def _pil_to_array(image: PIL.Image.Image, num_channels: int) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        raise ValueError(f"the image has mode {image.mode}, more than 8 bits per channel; convert it to 8 bits first")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    # The copy is writable, which torch.from_numpy asks for.
    return np.array(image.convert("RGB" if num_channels == 3 else "L")).reshape(image.height, image.width, -1)


def _to_channels(image: torch.Tensor, num_channels: int) -> torch.Tensor:
    if image.shape[0] == 1 and num_channels == 3:
        return image.expand(3, -1, -1)
    if image.shape[0] != num_channels:
        raise ValueError(
            f"the array has {image.shape[0]} channels and the image processor {num_channels}; pass a PIL image, "
            "which is converted"
        )
    return image
