"""Which network a state dict belongs to, by the names and shapes of its tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..models import backbone_names
from ..models.backbone_shapes import BackboneFields, backbone_shapes, empty_backbone, read_fields
from ..models.backbone_timm import TimmBackbone
from ..models.backbones import TIMM_PREFIX
from ..models.source_layouts import CLASSIFIERS
from .convert_names import rename_tensors


MOBILEFACENET_1X = "mobilefacenet_1x"

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
    body = empty_backbone(backbone)
    if not isinstance(body, TimmBackbone):
        return CLASSIFIERS
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
    prefix = _inner_prefix(backbone)
    fields = read_fields(backbone, {f"{prefix}{name}": tensor.shape for name, tensor in weights.items()})
    own_size = None if fields.image_size is None else list(fields.image_size)
    owners = {name.rpartition(".")[0] for name in weights.keys() - _expected(backbone).keys()}
    found = [name for name in classifier_names(backbone) if name in owners]
    classifier = found[0] if len(found) == 1 else None
    return Layout(
        backbone,
        fields.num_channels,
        own_size if image_size is None else image_size,
        fields.embedding_size,
        classifier,
        _num_labels(weights, classifier),
    )


def _num_labels(weights: Mapping[str, torch.Tensor], classifier: str | None) -> int | None:
    tensor = weights.get(f"{classifier}.weight", weights.get(f"{classifier}.bias"))
    return None if classifier is None or tensor is None or not tensor.ndim else len(tensor)


def _problems(backbone: str, weights: Mapping[str, torch.Tensor], image_size: list[int] | None) -> list[str]:
    """What keeps a state dict from being that of a network, by the names of this package."""
    weights = renamed_mobilefacenet(weights) if backbone == MOBILEFACENET_1X else weights
    layout = _layout(backbone, weights, image_size)
    sides = None if layout.image_size is None else (layout.image_size[0], layout.image_size[1])
    expected = _expected(backbone, BackboneFields(layout.num_channels, sides, layout.embedding_size))
    of_classifier = re.compile(f"{re.escape(layout.classifier or '')}\\.(weight|bias)")
    missing = [f"{name} (missing)" for name in expected if name not in weights]
    extra = [f"{name} (unknown)" for name in weights if name not in expected and not of_classifier.fullmatch(name)]
    misshapen = [
        f"{name} ({tuple(weights[name].shape)} instead of {tuple(shape)})"
        for name, shape in expected.items()
        if name in weights and weights[name].shape != shape
    ]
    return missing + extra + misshapen


def _expected(backbone: str, *fields: BackboneFields) -> dict[str, torch.Size]:
    """The tensors of a network by the names that sources give them."""
    prefix = _inner_prefix(backbone)
    return {name.removeprefix(prefix): shape for name, shape in backbone_shapes(backbone, *fields).items()}


def _inner_prefix(backbone: str) -> str:
    """What the module of a backbone puts before the names of a source's tensors."""
    return body_prefix(backbone).removeprefix("backbone.")
