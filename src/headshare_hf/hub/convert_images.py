"""The image processor that goes with a converted network: the statistics of the repository that it comes from."""

from collections.abc import Sequence
from typing import Any

import timm
from transformers.image_utils import PILImageResampling

from ..models import HeadShareConfig, HeadShareImageProcessor
from ..models.backbones import TIMM_PREFIX


_FACES = ("mobilefacenet", "iresnet")
_PAPER = "mobilefacenet_112x96"
_SMALL_SIZE = 32


def size_of(backbone: str) -> list[int]:
    """Height and width in pixels that a network without a size of its own is published for."""
    if backbone.startswith(TIMM_PREFIX):
        return list(_timm_settings(backbone).input_size[1:])
    return [_SMALL_SIZE, _SMALL_SIZE]


def image_processor_of(
    config: HeadShareConfig,
    channel_order: str,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[HeadShareImageProcessor, str]:
    """
    An image processor for a network, and where its statistics come from.

    Args:
        config ([`HeadShareConfig`]): The network.
        channel_order (`str`): `"rgb"` or `"bgr"`.
        mean (`Sequence[float]`, *optional*): Means of images in [0, 1], one a channel, in place of the source's.
        std (`Sequence[float]`, *optional*): Standard deviations, likewise.

    Raises:
        ValueError: Only one of `mean` and `std` is given, or not as many values as the network has channels.
    """
    if (mean is None) != (std is None):
        raise ValueError("only one of `mean` and `std` is given; give both or none")
    known_mean, known_std, resample, origin = _statistics(config.backbone)
    chosen_mean, chosen_std = list(mean or known_mean), list(std or known_std)
    if not len(chosen_mean) == len(chosen_std) == config.num_channels:
        raise ValueError(
            f"the network has {config.num_channels} channels, but there are {len(chosen_mean)} means and "
            f"{len(chosen_std)} standard deviations; give `mean` and `std` with one value a channel"
        )
    sides = [config.image_size] * 2 if isinstance(config.image_size, int) else config.image_size
    settings: dict[str, Any] = {
        "size": {"height": sides[0], "width": sides[1]},
        "image_mean": chosen_mean,
        "image_std": chosen_std,
        "channel_order": channel_order,
        "resample": resample,
    }
    described = "as given" if mean is not None else f"those of {origin}"
    values = f"mean {[round(value, 4) for value in chosen_mean]} and std {[round(value, 4) for value in chosen_std]}"
    size = f"{sides[0]}x{sides[1]}, {resample.name.lower()}"
    processor = HeadShareImageProcessor(**settings)
    return processor, f"image processor: {size}, {channel_order}, {values}, {described}"


def _statistics(backbone: str) -> tuple[list[float], list[float], PILImageResampling, str]:
    """Mean, deviation, interpolation, and where they come from."""
    own = HeadShareImageProcessor
    if backbone.startswith(TIMM_PREFIX):
        settings = _timm_settings(backbone)
        origin = f"timm's {backbone.removeprefix(TIMM_PREFIX)}, without its crop"
        # timm evaluates in bilinear interpolation where it draws one at random in training.
        resample = getattr(PILImageResampling, settings.interpolation.upper(), PILImageResampling.BILINEAR)
        return list(settings.mean), list(settings.std), resample, origin
    if backbone == _PAPER:
        # (x - 127.5) / 128
        return [0.5] * 3, [128 / 255] * 3, own.resample, "Xiaoccer/MobileFaceNet_Pytorch"
    if backbone.startswith(_FACES):
        return [0.5] * 3, [0.5] * 3, own.resample, "insightface"
    origin = "CIFAR-100, as in HeadSharingKD and RepDistiller"
    return list(own.image_mean), list(own.image_std), own.resample, origin


def _timm_settings(backbone: str) -> timm.models.PretrainedCfg:
    settings = timm.get_pretrained_cfg(backbone.removeprefix(TIMM_PREFIX))
    # Models without published weights have none.
    return settings if settings is not None else timm.models.PretrainedCfg()
