"""How a model wants its images, and from the images of one model to those of another."""

import logging
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


logger = logging.getLogger(__name__)


class InputStatistics(NamedTuple):
    """
    How a model wants its images.

    Attributes:
        mean (`tuple[float, ...]`): Per channel, of images in [0, 1], in the model's channel order.
        std (`tuple[float, ...]`): Likewise.
        size (`tuple[int, int]`, *optional*): Height and width in pixels; `None` takes any.
        channel_order (`str`): `"rgb"` or `"bgr"`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None = None
    channel_order: str = "rgb"


def input_statistics(processor: Any, model: nn.Module | None = None) -> InputStatistics | None:
    """
    The statistics that an image processor applies, or that a timm network carries in its configuration.

    Args:
        processor (`Any`): A transformers image processor, or `None`.
        model (`nn.Module`, *optional*): The model, asked when there is no processor.

    Returns:
        [`InputStatistics`], or `None` when neither says anything.
    """
    pretrained_cfg = getattr(processor, "data_config", None) or getattr(
        getattr(model, "config", None), "pretrained_cfg", None
    )
    if processor is not None and getattr(processor, "image_mean", None) is not None:
        size = (
            _height_width(getattr(processor, "crop_size", None))
            if getattr(processor, "do_center_crop", False)
            else None
        )
        if size is None and getattr(processor, "do_resize", True):
            size = _height_width(getattr(processor, "size", None))
        return InputStatistics(*_mean_std(processor), size, _channel_order(processor))
    if pretrained_cfg and pretrained_cfg.get("mean"):
        size = tuple(pretrained_cfg["input_size"][1:])
        return InputStatistics(tuple(pretrained_cfg["mean"]), tuple(pretrained_cfg["std"]), size)
    return None


def _channel_order(processor: Any) -> str:
    """Of its own, or as MobileViT's processor says it."""
    reverses = getattr(processor, "do_flip_channel_order", False)
    return "bgr" if reverses else getattr(processor, "channel_order", "rgb")


def _mean_std(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation in terms of images in [0, 1], whatever the processor rescales and normalises."""
    normalises = getattr(processor, "do_normalize", True)
    channels = len(processor.image_mean)
    mean = tuple(processor.image_mean) if normalises else (0.0,) * channels
    std = tuple(processor.image_std) if normalises else (1.0,) * channels
    rescales = getattr(processor, "do_rescale", True)
    factor = processor.rescale_factor if rescales else 1.0
    unit = 255 * factor
    if rescales and getattr(processor, "rescale_offset", False):
        # EfficientNet's: images are brought to [-1, 1].
        mean = tuple(m + 1 for m in mean)
    if getattr(processor, "include_top", False):
        # EfficientNet's too: images are divided by the deviations once more.
        std = tuple(s * d for s, d in zip(std, processor.image_std, strict=True))
    # The usual case stays exactly what the processor says.
    return (mean, std) if abs(unit - 1) < 1e-9 else (tuple(m / unit for m in mean), tuple(s / unit for s in std))


def _height_width(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    size = dict(size)
    if size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    edge = size.get("shortest_edge")
    return (int(edge), int(edge)) if edge else None


class InputAdapter:
    """
    Turns a batch normalised for the student into one normalised for the teacher: one multiplication and addition per
    channel, the other channel order and another size only where they differ.

    Args:
        student ([`InputStatistics`], *optional*): Of the batches that come in.
        teacher ([`InputStatistics`], *optional*): Of the batches that go out. With either `None`, both are the same.
    """

    def __init__(self, student: InputStatistics | None, teacher: InputStatistics | None) -> None:
        self.size = teacher.size if teacher is not None else None
        self._told = False
        self.flip = False
        self.scale: torch.Tensor | None = None
        self.shift: torch.Tensor | None = None
        if student is None and teacher is not None:
            raise ValueError(
                "the teacher's image statistics are known but the student's are not, so its input cannot be prepared; "
                "pass the student's image processor as `processing_class`"
            )
        if student is None or teacher is None:
            return
        _check_channels(student, teacher)
        self.flip = student.channel_order != teacher.channel_order
        self._set_affine(student, teacher)

    def _set_affine(self, student: InputStatistics, teacher: InputStatistics) -> None:
        step = -1 if self.flip else 1
        mean, std = (torch.tensor(values[::step], dtype=torch.float64) for values in (student.mean, student.std))
        target_mean, target_std = (torch.tensor(values, dtype=torch.float64) for values in (teacher.mean, teacher.std))
        if torch.equal(mean, target_mean) and torch.equal(std, target_std):
            return
        self.scale = (std / target_std).float().view(1, -1, 1, 1)
        self.shift = ((mean - target_mean) / target_std).float().view(1, -1, 1, 1)

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Maps `(batch_size, num_channels, height, width)` to the teacher's statistics and size."""
        if self.flip:
            pixel_values = pixel_values.flip(1)
        if self.scale is not None and self.shift is not None:
            self.scale, self.shift = self.scale.to(pixel_values.device), self.shift.to(pixel_values.device)
            pixel_values = pixel_values * self.scale + self.shift
        if self.size is not None and tuple(pixel_values.shape[-2:]) != self.size:
            self._tell(*pixel_values.shape[-2:])
            pixel_values = F.interpolate(pixel_values, self.size, mode="bicubic", antialias=True)
        return pixel_values

    def _tell(self, height: int, width: int) -> None:
        # No error: small teachers of small images read any size well enough, and the user may want just that.
        if not self._told and self.size is not None and (height < self.size[0] or width < self.size[1]):
            logger.warning(
                "the teacher reads images of %d x %d pixels, and those of %d x %d are enlarged for it, which it may not know well; "
                "look at its accuracy on such images, or prepare larger ones (of a recipe: `data.image_size`)",
                *self.size,
                height,
                width,
            )
        self._told = True


def _check_channels(student: InputStatistics, teacher: InputStatistics) -> None:
    if len(student.mean) != len(teacher.mean):
        raise ValueError(
            f"the student reads {len(student.mean)} channels and the teacher {len(teacher.mean)}; use one image "
            "processor with as many channels as the teacher for both"
        )
