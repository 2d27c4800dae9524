"""The table of backbones, by name."""

import difflib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import timm

from .backbone import Backbone
from .backbone_iresnet import IResNet
from .backbone_mobilefacenet import MobileFaceNet, MobileFaceNetPaper
from .backbone_mobilenetv2 import MobileNetV2
from .backbone_resnet import CifarResNet, ResNet50
from .backbone_shufflenet import ShuffleV1, ShuffleV2
from .backbone_timm import TimmBackbone
from .backbone_vgg import VGG
from .backbone_wrn import WideResNet


TIMM_PREFIX = "timm/"

_NARROW = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)

# What defines a network is bound by position, so that keyword arguments cannot change it.
BACKBONES: dict[str, Callable[..., Backbone]] = {
    "resnet8": partial(CifarResNet, 8, _NARROW),
    "resnet14": partial(CifarResNet, 14, _NARROW),
    "resnet20": partial(CifarResNet, 20, _NARROW),
    "resnet32": partial(CifarResNet, 32, _NARROW),
    "resnet44": partial(CifarResNet, 44, _NARROW),
    "resnet56": partial(CifarResNet, 56, _NARROW),
    "resnet110": partial(CifarResNet, 110, _NARROW),
    "resnet8x4": partial(CifarResNet, 8, _WIDE),
    "resnet32x4": partial(CifarResNet, 32, _WIDE),
    "ResNet50": ResNet50,
    "wrn_16_1": partial(WideResNet, 16, 1),
    "wrn_16_2": partial(WideResNet, 16, 2),
    "wrn_40_1": partial(WideResNet, 40, 1),
    "wrn_40_2": partial(WideResNet, 40, 2),
    "vgg8": partial(VGG, (1, 1, 1, 1, 1)),
    "vgg11": partial(VGG, (1, 1, 2, 2, 2)),
    "vgg13": partial(VGG, (2, 2, 2, 2, 2)),
    "vgg16": partial(VGG, (2, 2, 3, 3, 3)),
    "vgg19": partial(VGG, (2, 2, 4, 4, 4)),
    "MobileNetV2": MobileNetV2,
    "ShuffleV1": ShuffleV1,
    "ShuffleV2": ShuffleV2,
    "mobilefacenet": partial(MobileFaceNet, 2),
    "mobilefacenet_1x": partial(MobileFaceNet, 1),
    "mobilefacenet_112x96": MobileFaceNetPaper,
    "iresnet18": partial(IResNet, (2, 2, 2, 2)),
    "iresnet34": partial(IResNet, (3, 4, 6, 3)),
    "iresnet50": partial(IResNet, (3, 4, 14, 3)),
    "iresnet100": partial(IResNet, (3, 13, 30, 3)),
}

# What `HeadShareConfig` has fields for; a network takes them where its signature names them.
_FIELDS = ("num_channels", "image_size", "num_features")


def backbone_names() -> list[str]:
    """The names of the networks of this package; `timm/<name of a timm model>` is allowed besides."""
    return list(BACKBONES)


def check_backbone_name(name: str) -> None:
    """
    Checks that a backbone exists, without building it.

    Raises:
        ValueError: Names the nearest backbones and all families.
    """
    if name in BACKBONES or (name.startswith(TIMM_PREFIX) and timm.is_model(name.removeprefix(TIMM_PREFIX))):
        return
    known = [*BACKBONES, *(TIMM_PREFIX + model for model in timm.list_models())]
    nearest = ", ".join(difflib.get_close_matches(name, known)) or "none"
    everything = ", ".join([*BACKBONES, f"{TIMM_PREFIX}<name of a timm model>"])
    raise ValueError(f"unknown backbone {name!r}; nearest: {nearest}; all: {everything}")


def create_backbone(
    name: str,
    num_channels: int = 3,
    image_size: int | list[int] | None = None,
    embedding_size: int | None = None,
    **kwargs: Any,
) -> Backbone:
    """
    Builds a backbone with random weights.

    Args:
        name (`str`): One of `backbone_names()`, or `timm/<name of a timm model>`.
        num_channels (`int`, *optional*, defaults to 3): Channels of the input images.
        image_size (`int` or `list[int]`, *optional*):
            Pixels of one side, or height and width, for the face networks, which are built for one size; the others do
            not depend on it. `None` takes the size of the published weights.
        embedding_size (`int`, *optional*):
            Width of the embedding for the face networks; that of the others is fixed. `None` takes the network's own.
        kwargs (keyword arguments): `drop_rate` for a WRN, `dropout` for an IResNet; timm's own for a timm model.

    Raises:
        ValueError: Names the unknown backbone, or the keyword that it does not take and those that it does.
    """
    check_backbone_name(name)
    if name.startswith(TIMM_PREFIX):
        return TimmBackbone(name.removeprefix(TIMM_PREFIX), num_channels, **kwargs)
    factory = BACKBONES[name]
    parameters = inspect.signature(factory).parameters
    allowed = [keyword for keyword in parameters if keyword not in _FIELDS]
    unknown = [keyword for keyword in kwargs if keyword not in allowed]
    if unknown:
        raise ValueError(
            f"{name} does not take the keyword {', '.join(unknown)} (`backbone_kwargs`); allowed: "
            f"{', '.join(allowed) or 'none'}"
        )
    fields = dict(zip(_FIELDS, (num_channels, image_size, embedding_size), strict=True))
    given = {key: value for key, value in fields.items() if key in parameters and value is not None}
    return factory(**given, **kwargs)
