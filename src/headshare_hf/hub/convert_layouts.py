"""Which network a state dict belongs to, by the names and shapes of its tensors."""

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..models import backbone_names
from ..models.backbone import Backbone
from ..models.backbone_face import FaceBackbone
from ..models.backbone_iresnet import IResNet
from ..models.backbone_mobilefacenet import MobileFaceNet, MobileFaceNetPaper
from ..models.backbone_timm import TimmBackbone
from ..models.backbones import TIMM_PREFIX, create_backbone
from .convert_names import rename_tensors


MOBILEFACENET_1X = "mobilefacenet_1x"

# What the reference's networks call their classifier (`architectures`: resnet and wrn, vgg, MobileNetV2, the others).
_CLASSIFIERS = ("fc", "classifier", "classifier.0", "linear")
# All face networks divide both sides by it, rounding up, and end in this many channels.
_STRIDE = 16
_FINAL_CHANNELS = 512
# The layer with a weight for every position of the final map, and the layer whose rows are the embedding's features.
_FACE_LAYERS: dict[type[FaceBackbone], tuple[str, str]] = {
    MobileFaceNet: ("features.layers.0.layers.0.weight", "features.layers.2.weight"),
    MobileFaceNetPaper: ("linear7.conv.weight", "linear1.conv.weight"),
    IResNet: ("fc.weight", "fc.weight"),
}

# The MobileFaceNet of TreB1eN/InsightFace_Pytorch (`model.py`) and its many descendants: insightface's network at
# scale 1 under other names, for its parts and for the layers of a part.
_PARTS = {
    "conv1": "layers.0",
    "conv2_dw": "layers.1",
    "conv_23": "layers.2",
    "conv_3": "layers.3",
    "conv_34": "layers.4",
    "conv_4": "layers.5",
    "conv_45": "layers.6",
    "conv_5": "layers.7",
    "conv_6_sep": "conv_sep",
    "conv_6_dw": "features.layers.0",
    "linear": "features.layers.2",
    "bn": "features.layers.3",
}
_LAYERS = {
    "model": "layers",
    **{"conv": "layers.0", "conv_dw": "layers.1", "project": "layers.2"},
    **{"bn": "layers.1", "prelu": "layers.2"},
}
_SIGN = "conv_6_sep.conv.weight"


@dataclass(frozen=True)
class Layout:
    """
    What the tensors of a checkpoint tell about its network.

    Args:
        backbone (`str`): Name of the network.
        num_channels (`int`): Channels of the input images.
        image_size (`list[int]`, *optional*): Height and width: those given, or what a face network was built for.
        embedding_size (`int`, *optional*): Width of the embedding, for a face network.
        classifier (`str`, *optional*): What the source calls its classifier; `None` where it has none.
        num_labels (`int`, *optional*): Its number of classes.
    """

    backbone: str
    num_channels: int
    image_size: list[int] | None
    embedding_size: int | None
    classifier: str | None
    num_labels: int | None


def body_prefix(backbone: str) -> str:
    """What [`HeadShareModel`] puts before the names of a source's tensors."""
    return "backbone.model.timm_model." if backbone.startswith(TIMM_PREFIX) else "backbone."


def classifier_names(backbone: str) -> tuple[str, ...]:
    """What the sources of a backbone may call its classifier."""
    body = _build(backbone)
    if not isinstance(body, TimmBackbone):
        return _CLASSIFIERS
    name = body.model.timm_model.pretrained_cfg.get("classifier")
    return (name,) if isinstance(name, str) else ()


def renamed_mobilefacenet(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    The tensors of TreB1eN/InsightFace_Pytorch's MobileFaceNet by the names of `mobilefacenet_1x`; others as they are.

    Raises:
        ValueError: Two tensors get the same name.
    """
    if _SIGN not in weights:
        return dict(weights)
    return rename_tensors(weights, {name: _renamed(name) for name in weights})


def _renamed(name: str) -> str:
    part, *layers = name.split(".")
    if part not in _PARTS or not layers:
        return name
    return ".".join([_PARTS[part], *(_LAYERS.get(layer, layer) for layer in layers)])


def infer_layout(
    weights: Mapping[str, torch.Tensor], backbone: str | None = None, image_size: list[int] | None = None
) -> Layout:
    """
    Reads off the tensors what network they belong to.

    Args:
        weights (`Mapping[str, torch.Tensor]`): Tensors by the source's names, without what wraps the network.
        backbone (`str`, *optional*): The network, where it is known; timm's are never looked for.
        image_size (`list[int]`, *optional*):
            Height and width. For a face network the default is 16 times those of its final map, as published ones are.

    Raises:
        ValueError: No network has these tensors, with what the nearest one lacks; or several have.
    """
    if backbone is not None:
        return _layout(backbone, weights, image_size)
    problems = {name: _problems(name, weights, image_size) for name in backbone_names()}
    matches = [name for name, found in problems.items() if not found]
    if len(matches) > 1:
        raise ValueError(f"the weights fit several networks: {', '.join(matches)}; say which one with `backbone`")
    if not matches:
        nearest = min(problems, key=lambda name: len(problems[name]))
        near = len(problems[nearest]) <= len(weights) // 4 + 1
        hint = f"; the nearest, {nearest}, differs in {', '.join(problems[nearest])}" if near else ""
        raise ValueError(
            f"the weights fit none of {', '.join(problems)}{hint}. For timm's networks give `backbone` timm/<name>"
        )
    return _layout(matches[0], weights, image_size)


def near_layout(weights: Mapping[str, torch.Tensor]) -> str | None:
    """The first network that has these tensors."""
    return next((name for name in backbone_names() if not _problems(name, weights, None)), None)


def _layout(backbone: str, weights: Mapping[str, torch.Tensor], image_size: list[int] | None) -> Layout:
    weights = renamed_mobilefacenet(weights) if backbone == MOBILEFACENET_1X else weights
    body = _build(backbone)
    stem = next(name for name, shape in _shapes(backbone).items() if len(shape) == 4)
    num_channels = weights[stem].shape[1] if stem in weights and weights[stem].ndim == 4 else 3
    size, width = _face_fields(body, weights, image_size) if isinstance(body, FaceBackbone) else (image_size, None)
    rest = [name for name in weights if name not in _shapes(backbone)]
    owners = {name.rpartition(".")[0] for name in rest}
    found = [name for name in classifier_names(backbone) if name in owners]
    classifier = found[0] if len(found) == 1 else None
    return Layout(backbone, num_channels, size, width, classifier, _num_labels(weights, classifier))


def _num_labels(weights: Mapping[str, torch.Tensor], classifier: str | None) -> int | None:
    tensor = weights.get(f"{classifier}.weight", weights.get(f"{classifier}.bias"))
    return None if classifier is None or tensor is None or not tensor.ndim else len(tensor)


def _face_fields(
    body: FaceBackbone, weights: Mapping[str, torch.Tensor], image_size: list[int] | None
) -> tuple[list[int], int]:
    spatial, embedding = (weights.get(name) for name in _FACE_LAYERS[type(body)])
    width = body.num_features if embedding is None or not embedding.ndim else len(embedding)
    if image_size is not None:
        return image_size, width
    sides = list(body.final_size)
    if spatial is not None and spatial.ndim == 4:
        sides = list(spatial.shape[2:])
    elif spatial is not None and spatial.ndim == 2:
        side = math.isqrt(spatial.shape[1] // _FINAL_CHANNELS)
        sides = [side, side]
    return [_STRIDE * max(side, 1) for side in sides], width


def _problems(backbone: str, weights: Mapping[str, torch.Tensor], image_size: list[int] | None) -> list[str]:
    """What keeps a state dict from being that of a network, by the names of this package."""
    weights = renamed_mobilefacenet(weights) if backbone == MOBILEFACENET_1X else weights
    layout = _layout(backbone, weights, image_size)
    sides = None if layout.image_size is None else (layout.image_size[0], layout.image_size[1])
    expected = _shapes(backbone, layout.num_channels, sides, layout.embedding_size)
    of_classifier = re.compile(f"{re.escape(layout.classifier or '')}\\.(weight|bias)")
    missing = [f"{name} (missing)" for name in expected if name not in weights]
    extra = [f"{name} (unknown)" for name in weights if name not in expected and not of_classifier.fullmatch(name)]
    misshapen = [
        f"{name} ({tuple(weights[name].shape)} instead of {tuple(shape)})"
        for name, shape in expected.items()
        if name in weights and weights[name].shape != shape
    ]
    return missing + extra + misshapen


@functools.lru_cache(maxsize=128)
def _build(
    backbone: str,
    num_channels: int = 3,
    image_size: tuple[int, int] | None = None,
    embedding_size: int | None = None,
) -> Backbone:
    with torch.device("meta"):
        return create_backbone(
            backbone, num_channels, None if image_size is None else list(image_size), embedding_size
        )


@functools.lru_cache(maxsize=128)
def _shapes(
    backbone: str,
    num_channels: int = 3,
    image_size: tuple[int, int] | None = None,
    embedding_size: int | None = None,
) -> dict[str, torch.Size]:
    body = _build(backbone, num_channels, image_size, embedding_size)
    prefix = body_prefix(backbone).removeprefix("backbone.")
    return {name.removeprefix(prefix): tensor.shape for name, tensor in body.state_dict().items()}
