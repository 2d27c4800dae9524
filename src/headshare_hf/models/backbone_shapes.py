"""Which backbone tensors belong to, by their names and shapes; nothing is computed, and no weights are made."""

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch

from .backbone import Backbone
from .backbone_face import FaceBackbone
from .backbone_iresnet import IResNet
from .backbone_mobilefacenet import MobileFaceNet, MobileFaceNetPaper
from .backbones import backbone_names, create_backbone
from .source_layouts import CLASSIFIERS


# All face networks divide both sides by it, rounding up, and end in this many channels.
_STRIDE = 16
_FINAL_CHANNELS = 512
# The layer with a weight for every position of the final map, and the layer whose rows are the embedding's features.
_FACE_LAYERS: dict[type[FaceBackbone], tuple[str, str]] = {
    MobileFaceNet: ("features.layers.0.layers.0.weight", "features.layers.2.weight"),
    MobileFaceNetPaper: ("linear7.conv.weight", "linear1.conv.weight"),
    IResNet: ("fc.weight", "fc.weight"),
}
# What the models of this package put before the names of a backbone's tensors.
_OWN_PREFIXES = ("headshare.backbone.", "backbone.")


class BackboneFields(NamedTuple):
    """
    What a network is built with, beside its name.

    Attributes:
        num_channels (`int`): Channels of the input images.
        image_size (`tuple[int, int]`, *optional*): Height and width in pixels; for a face network alone.
        embedding_size (`int`, *optional*): Width of the embedding, likewise.
    """

    num_channels: int = 3
    image_size: tuple[int, int] | None = None
    embedding_size: int | None = None


_USUAL = BackboneFields()


@functools.lru_cache(maxsize=128)
def empty_backbone(name: str, fields: BackboneFields = _USUAL) -> Backbone:
    """A network without memory for its weights."""
    size = None if fields.image_size is None else list(fields.image_size)
    with torch.device("meta"):
        return create_backbone(name, fields.num_channels, size, fields.embedding_size)


@functools.lru_cache(maxsize=128)
def backbone_shapes(name: str, fields: BackboneFields = _USUAL) -> dict[str, torch.Size]:
    """The shape of every tensor of a network, by its name."""
    return {key: tensor.shape for key, tensor in empty_backbone(name, fields).state_dict().items()}


def read_fields(name: str, shapes: Mapping[str, torch.Size]) -> BackboneFields:
    """
    What a network must have been built with to have these tensors, as far as they tell.

    Args:
        name (`str`): The network.
        shapes (`Mapping[str, torch.Size]`): Shapes by the names of its tensors.
    """
    stem = next(key for key, shape in backbone_shapes(name).items() if len(shape) == 4)
    num_channels = shapes[stem][1] if len(shapes.get(stem, ())) == 4 else 3
    body = empty_backbone(name)
    if not isinstance(body, FaceBackbone):
        return BackboneFields(num_channels)
    spatial, embedding = (shapes.get(layer, torch.Size()) for layer in _FACE_LAYERS[type(body)])
    return BackboneFields(num_channels, _size(body, spatial), embedding[0] if embedding else body.num_features)


def _size(body: FaceBackbone, spatial: torch.Size) -> tuple[int, int]:
    height, width = body.final_size
    if len(spatial) == 4:
        height, width = spatial[2:]
    elif len(spatial) == 2:
        height = width = math.isqrt(spatial[1] // _FINAL_CHANNELS)
    return _STRIDE * max(height, 1), _STRIDE * max(width, 1)


def recognize_backbone(shapes: Mapping[str, torch.Size]) -> tuple[str, BackboneFields] | None:
    """
    The backbone in a checkpoint of this package; `None` where it is none of `backbone_names()`.

    Args:
        shapes (`Mapping[str, torch.Size]`): Shapes of all tensors of a [`HeadShareModel`] or a
            [`HeadShareForImageClassification`], by their names.
    """
    body = own_body(shapes)
    for name in backbone_names():
        fields = read_fields(name, body)
        if backbone_shapes(name, fields) == body:
            return name, fields
    return None


def own_body(shapes: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    """The part of a checkpoint of this package that is the backbone's, by the backbone's own names."""
    return {
        name.removeprefix(prefix): shape
        for prefix in _OWN_PREFIXES
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }


def recognize_source(shapes: Mapping[str, torch.Size]) -> str | None:
    """
    The backbone in a checkpoint of the repository that it comes from, with a classifier or without; `None` where it is
    none of `backbone_names()`.

    Args:
        shapes (`Mapping[str, torch.Size]`): Shapes of all tensors, by their names without what wraps the network.
    """
    for name in backbone_names():
        expected = backbone_shapes(name, read_fields(name, shapes))
        owners = {other.rpartition(".")[0] for other in shapes.keys() - expected.keys()}
        if len(owners) <= 1 and owners <= set(CLASSIFIERS) and expected.items() <= shapes.items():
            return name
    return None
