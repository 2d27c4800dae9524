"""What weights look like that do not fit a model, by the names and shapes of their tensors."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from .backbone_face import height_and_width
from .backbone_iresnet import IResNet
from .backbone_mobilefacenet import MobileFaceNet, MobileFaceNetPaper
from .backbone_shapes import empty_backbone, own_body, recognize_backbone, recognize_source
from .backbones import TIMM_PREFIX
from .source_layouts import student_names, unwrapped_names


_SOURCES = {MobileFaceNet: "insightface", IResNet: "insightface", MobileFaceNetPaper: "MobileFaceNet_Pytorch"}
# What a backbone of timm puts before the names of timm.
_TIMM_BODY = "model.timm_model."
_CONVERT = "python -m headshare_hf.hub.convert"
_USUAL = f"Load it with the class and configuration that it was saved from, or convert it with `{_CONVERT}`."


class LookAlike(NamedTuple):
    """
    What is said of weights that do not fit.

    Attributes:
        told (`str`): What they look like; empty where that is not known.
        remedy (`str`): What to do, one sentence.
    """

    told: str
    remedy: str = _USUAL


def look_alike(shapes: Mapping[str, torch.Size], model: Any) -> LookAlike:
    """
    What a checkpoint looks like that was read for another network, or that another repository saved.

    Args:
        shapes (`Mapping[str, torch.Size]`): Shapes of all of its tensors, by their names.
        model ([`HeadShareModel`] or [`HeadShareForImageClassification`]): What it was read for.
    """
    names = unwrapped_names(shapes)
    inner = {name: shapes[key] for key, name in names.items()}
    if not own_body(inner):
        return _of_others({name: shapes[key] for key, name in student_names(names).items()}, model)
    told = _own(inner, model)
    wrapper = next(iter(shapes)).removesuffix(next(iter(inner)))
    if not wrapper:
        return LookAlike(told)
    told = told or f"its tensors are those of {model.config.backbone}"
    remedy = "Save the model that is wrapped, `model.module.save_pretrained(...)`."
    return LookAlike(f"{told}, all of them under `{wrapper}`", remedy)


def _own(shapes: Mapping[str, torch.Size], model: Any) -> str:
    """Of weights by this package's names: the network, if it is another one, and the fields that it was built with."""
    config, found = model.config, recognize_backbone(shapes)
    if found is None:
        return _timm(own_body(shapes), model)
    backbone, fields = found
    size = None if fields.image_size is None else list(fields.image_size)
    told = {"num_channels": fields.num_channels, "image_size": size, "embedding_size": fields.embedding_size}
    own = {"num_channels": config.num_channels, "image_size": list(height_and_width(config.image_size))}
    own["embedding_size"] = config.embedding_size
    others = [f"`{key}` {value}" for key, value in told.items() if value is not None and value != own[key]]
    if backbone == config.backbone and not others:
        return ""
    return f"its tensors are those of {backbone}" + (f" with {', '.join(others)}" if others else "")


def _timm(body: Mapping[str, torch.Size], model: Any) -> str:
    """Of weights by this package's names for a network of timm; shapes alone do not tell which of its many."""
    backbone = model.config.backbone
    if not all(name.startswith(_TIMM_BODY) for name in body):
        return ""
    if not backbone.startswith(TIMM_PREFIX):
        return "its tensors are those of a timm network"
    expected = _shapes(model)
    if expected.keys() != body.keys():
        return f"its tensors are those of a timm network other than {backbone}"
    if expected != body:
        return (
            f"its tensors have the names of {backbone}, and other shapes: `num_channels` or `backbone_kwargs` differ"
        )
    return ""


def _of_others(shapes: Mapping[str, torch.Size], model: Any) -> LookAlike:
    """Of weights by the names of the repositories that the converters know."""
    backbone, found = model.config.backbone, recognize_source(shapes)
    if found is not None:
        source = _SOURCES.get(type(empty_backbone(found)), "the authors' code")
        return LookAlike(f"its tensors look like {found} in the layout of {source}", f"Convert it with `{_CONVERT}`.")
    if not (shapes and backbone.startswith(TIMM_PREFIX)):
        return LookAlike("")
    expected = {name.removeprefix(_TIMM_BODY): shape for name, shape in _shapes(model).items()}
    if expected.items() <= shapes.items():
        remedy = f"Convert it with `{_CONVERT} --backbone {backbone}`."
        return LookAlike(f"its tensors look like {backbone} in the layout of timm", remedy)
    return LookAlike(f"its tensors are not those of {backbone}, neither in this package's layout nor in timm's")


def _shapes(model: Any) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.base_model.backbone.state_dict().items()}
