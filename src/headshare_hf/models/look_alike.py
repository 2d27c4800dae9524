"""What weights look like that do not fit a model, by the names and shapes of their tensors."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from .backbone_face import height_and_width
from .backbone_iresnet import IResNet
from .backbone_mobilefacenet import MobileFaceNet, MobileFaceNetPaper
from .backbone_shapes import empty_backbone, own_body, recognize_backbone, recognize_source
from .backbones import TIMM_PREFIX
from .configuration_headshare import HeadShareConfig
from .source_layouts import WRAPPERS, student_names, unwrapped_names


_SOURCES = {MobileFaceNet: "insightface", IResNet: "insightface", MobileFaceNetPaper: "MobileFaceNet_Pytorch"}
# What a backbone of timm puts before the names of timm.
_TIMM_BODY = "model.timm_model."
_CONVERT = "python -m headshare_hf.hub.convert"
_RELOAD = "Load it with the class and configuration that it was saved from"
_USUAL = f"{_RELOAD}, or convert it with `{_CONVERT}`."
# How the classifiers end in name that transformers and timm put beside a network.
_HEADS = ("classifier", "fc", "head", "linear")


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
        model (`Any`): What it was read for: a [`HeadShareModel`], a [`HeadShareForImageClassification`], or a model of
            another package.
    """
    names = unwrapped_names(shapes)
    inner = {name: shapes[key] for key, name in names.items()}
    if not own_body(inner):
        others = {name: shapes[key] for key, name in student_names(names).items()}
        return _of_others(others, model) or _under_a_prefix(shapes, model) or _unknown(shapes, model)
    told = _own(inner, model)
    wrapper = _wrapper(names)
    if not wrapper:
        return LookAlike(told, _USUAL if _backbone(model) else f"{_RELOAD}.")
    told = told or f"its tensors are those of {_backbone(model)}"
    return LookAlike(f"{told}, all of them under `{wrapper}`", _unwrap(wrapper))


def _wrapper(names: Mapping[str, str]) -> str:
    """What [`unwrapped_names`] has taken off, with the dots."""
    name, inner = next(iter(names.items()))
    return name.removesuffix(inner)


def _unwrap(wrapper: str) -> str:
    # torch names the attribute that holds the model in front of the names of its tensors.
    return f"Save the model that is wrapped, `model.{wrapper}save_pretrained(...)`."


def _backbone(model: Any) -> str:
    """The name of the network that was expected; empty of a model of another package."""
    return model.config.backbone if isinstance(model.config, HeadShareConfig) else ""


def _own(shapes: Mapping[str, torch.Size], model: Any) -> str:
    """Of weights by this package's names: the network, if it is another one, and the fields that it was built with."""
    found = recognize_backbone(shapes)
    if found is None:
        return _timm(own_body(shapes), model)
    backbone, fields = found
    if not _backbone(model):
        return f"its tensors are those of {backbone}"
    config = model.config
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
    backbone = _backbone(model)
    if not all(name.startswith(_TIMM_BODY) for name in body):
        return "" if backbone else "its tensors have the names of this package"
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


def _of_others(shapes: Mapping[str, torch.Size], model: Any) -> LookAlike | None:
    """Of weights by the names of the repositories that the converters know."""
    backbone, found = _backbone(model), recognize_source(shapes)
    if found is not None:
        source = _SOURCES.get(type(empty_backbone(found)), "the authors' code")
        return LookAlike(f"its tensors look like {found} in the layout of {source}", f"Convert it with `{_CONVERT}`.")
    if not backbone.startswith(TIMM_PREFIX):
        return None
    expected = {name.removeprefix(_TIMM_BODY): shape for name, shape in _shapes(model).items()}
    if not expected.items() <= shapes.items():
        return None
    remedy = f"Convert it with `{_CONVERT} --backbone {backbone}`."
    return LookAlike(f"its tensors look like {backbone} in the layout of timm", remedy)


def _under_a_prefix(shapes: Mapping[str, torch.Size], model: Any) -> LookAlike | None:
    """
    Of weights under one name beside at most their classifier, as transformers saves the networks of its classifiers: none
    of the converters takes them.
    """
    owners = {name.partition(".")[0] for name in shapes}
    bodies = [f"{owner}." for owner in owners if not owner.endswith(_HEADS)]
    if len(bodies) != 1:
        return None
    prefix = bodies[0]
    count = sum(name.startswith(prefix) for name in shapes)
    if not count or any(name.startswith(prefix) for name in model.state_dict()):
        return None
    remedy = _unwrap(_wrapper(unwrapped_names(shapes)) or prefix) if prefix in WRAPPERS else f"{_RELOAD}."
    return LookAlike(f"{count} of its {len(shapes)} tensors are under `{prefix}`", remedy)


def _unknown(shapes: Mapping[str, torch.Size], model: Any) -> LookAlike:
    backbone = _backbone(model)
    if not backbone:
        return LookAlike("", f"{_RELOAD}.")
    if not (shapes and backbone.startswith(TIMM_PREFIX)):
        return LookAlike("")
    return LookAlike(f"its tensors are not those of {backbone}, neither in this package's layout nor in timm's")


def _shapes(model: Any) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.base_model.backbone.state_dict().items()}
