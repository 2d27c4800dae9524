"""Weights of other layouts, in this package's names."""

from collections.abc import Mapping

import torch

from ..models import HeadShareConfig, HeadShareForImageClassification, HeadShareModel, backbone_names
from ..models.backbones import create_backbone


# What the reference's networks call their classifier (`architectures`: resnet and wrn, vgg, MobileNetV2, the others).
_CLASSIFIERS = ("fc", "classifier", "classifier.0", "linear")
_BASE = "headshare."
_BACKBONE = "backbone."
# What DistributedDataParallel puts before every name.
_PARALLEL = "module."


def convert_state_dict(
    state_dict: Mapping[str, torch.Tensor], config: HeadShareConfig, partial: bool = False
) -> dict[str, torch.Tensor]:
    """
    Renames the tensors of Alibaba-MIIL/HeadSharingKD and HobbitLong/RepDistiller to those of
    [`HeadShareForImageClassification`].

    Args:
        state_dict (`Mapping[str, torch.Tensor]`):
            Tensors by the reference's names, e.g. `layer1.0.conv1.weight`; all of them may begin with `module.`.
        config ([`HeadShareConfig`]): The network that they belong to.
        partial (`bool`, *optional*, defaults to `False`): Whether tensors of the network may be left out.

    Returns:
        `dict[str, torch.Tensor]`: The same tensors, ready for `load_state_dict`.

    Raises:
        ValueError: A tensor is unknown, missing or of another shape; all of them are named.
    """
    with torch.device("meta"):
        expected = _shapes(HeadShareForImageClassification(config))
    weights = _without_parallel(state_dict)
    converted = {_rename(name, expected): tensor for name, tensor in weights.items()}
    problems = _problems(converted, expected, partial)
    if problems:
        described = f"{config.backbone} with {config.num_labels} classes"
        raise ValueError(f"the weights are not those of {described} ({problems}){_looks_like(weights, config)}")
    return converted


def convert_backbone_state_dict(
    state_dict: Mapping[str, torch.Tensor], config: HeadShareConfig
) -> dict[str, torch.Tensor]:
    """
    Renames the tensors of a network without classifier to those of [`HeadShareModel`].

    Such files come from deepinsight/insightface (`recognition/arcface_torch`: `r18`, `r34`, `r50`, `r100` are
    `iresnet18` to `iresnet100`, `mbf` is `mobilefacenet`) and Xiaoccer/MobileFaceNet_Pytorch (`mobilefacenet_112x96`,
    the entry `net_state_dict` of its checkpoints). Both have every counter `num_batches_tracked`, so none may be left
    out. Load the result into `model.headshare` to start a [`HeadShareForImageClassification`] from it.

    Args:
        state_dict (`Mapping[str, torch.Tensor]`):
            Tensors by the names of these repositories, e.g. `layer1.0.prelu.weight`; all of them may begin with
            `module.`.
        config ([`HeadShareConfig`]):
            The network that they belong to, with the `image_size` (112; `[112, 96]` for `mobilefacenet_112x96`) and
            the `embedding_size` that it was trained with.

    Returns:
        `dict[str, torch.Tensor]`: The same tensors, ready for `load_state_dict`.

    Raises:
        ValueError: A tensor is unknown, missing or of another shape; all of them are named.
    """
    with torch.device("meta"):
        expected = _shapes(HeadShareModel(config))
    weights = _without_parallel(state_dict)
    converted = {_BACKBONE + name: tensor for name, tensor in weights.items()}
    problems = _problems(converted, expected)
    if problems:
        described = f"{config.backbone} for `image_size` {config.image_size}"
        raise ValueError(f"the weights are not those of {described} ({problems}){_looks_like(weights, config)}")
    return converted


def _shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _without_parallel(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if not all(name.startswith(_PARALLEL) for name in state_dict):
        return dict(state_dict)
    return {name.removeprefix(_PARALLEL): tensor for name, tensor in state_dict.items()}


def _rename(name: str, expected: Mapping[str, torch.Size]) -> str:
    if _BASE + _BACKBONE + name in expected:
        return _BASE + _BACKBONE + name
    owner, _, leaf = name.rpartition(".")
    return f"classifier.{leaf}" if owner in _CLASSIFIERS else name


def _problems(converted: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Size], partial: bool = False) -> str:
    """What does not fit, tensor by tensor; empty where everything does."""
    extra = sorted(name for name in converted if name not in expected)
    missing = [] if partial else sorted(expected.keys() - converted.keys())
    wrong = [
        f"{name} is {tuple(tensor.shape)} instead of {tuple(expected[name])}"
        for name, tensor in sorted(converted.items())
        if name in expected and tensor.shape != expected[name]
    ]
    problems = [("unknown", extra), ("missing", missing), ("of another shape", wrong)]
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems if names)


def _looks_like(weights: Mapping[str, torch.Tensor], config: HeadShareConfig) -> str:
    """The backbone whose tensors these are, if it is another one."""
    own_width = config.embedding_size if config.projector is None else None
    for name in backbone_names():
        with torch.device("meta"):
            body = _shapes(create_backbone(name, config.num_channels, config.image_size, own_width))
        others = {key.rpartition(".")[0] for key in weights.keys() - body.keys()}
        fits = all(key in weights and weights[key].shape == shape for key, shape in body.items())
        if fits and others <= set(_CLASSIFIERS):
            return f". They look like {name}" if name != config.backbone else ""
    return ""
