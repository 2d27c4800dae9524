"""Weights of the reference's layout, in this package's names."""

from collections.abc import Mapping

import torch

from ..models import HeadShareConfig, HeadShareForImageClassification, backbone_names


# What the reference's networks call their classifier (`architectures`: resnet and wrn, vgg, MobileNetV2, the others).
_CLASSIFIERS = ("fc", "classifier", "classifier.0", "linear")
_BACKBONE = "headshare.backbone."


def convert_state_dict(
    state_dict: Mapping[str, torch.Tensor], config: HeadShareConfig, partial: bool = False
) -> dict[str, torch.Tensor]:
    """
    Renames the tensors of Alibaba-MIIL/HeadSharingKD and HobbitLong/RepDistiller to those of
    [`HeadShareForImageClassification`].

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): Tensors by the reference's names, e.g. `layer1.0.conv1.weight`.
        config ([`HeadShareConfig`]): The network that they belong to.
        partial (`bool`, *optional*, defaults to `False`): Whether tensors of the network may be left out.

    Returns:
        `dict[str, torch.Tensor]`: The same tensors, ready for `load_state_dict`.

    Raises:
        ValueError: A tensor is unknown, missing or of another shape; all of them are named.
    """
    expected = _expected(config)
    converted = {_rename(name, expected): tensor for name, tensor in state_dict.items()}
    extra = sorted(name for name in converted if name not in expected)
    missing = [] if partial else sorted(expected.keys() - converted.keys())
    wrong = [
        f"{name} is {tuple(tensor.shape)} instead of {tuple(expected[name])}"
        for name, tensor in sorted(converted.items())
        if name in expected and tensor.shape != expected[name]
    ]
    problems = [("unknown", extra), ("missing", missing), ("of another shape", wrong)]
    found = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems if names)
    if found:
        raise ValueError(
            f"the weights are not those of {_describe(config)} ({found}){_looks_like(state_dict, config)}"
        )
    return converted


def _expected(config: HeadShareConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = HeadShareForImageClassification(config)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _rename(name: str, expected: Mapping[str, torch.Size]) -> str:
    if _BACKBONE + name in expected:
        return _BACKBONE + name
    owner, _, leaf = name.rpartition(".")
    return f"classifier.{leaf}" if owner in _CLASSIFIERS else name


def _describe(config: HeadShareConfig) -> str:
    return f"{config.backbone} with {config.num_labels} classes"


def _looks_like(state_dict: Mapping[str, torch.Tensor], config: HeadShareConfig) -> str:
    """The backbone whose tensors these are, if it is another one."""
    shapes = {name: tensor.shape for name, tensor in state_dict.items() if name.rpartition(".")[0] not in _CLASSIFIERS}
    for backbone in backbone_names():
        other = HeadShareConfig(backbone=backbone, id2label=config.id2label, num_channels=config.num_channels)
        body = {k.removeprefix(_BACKBONE): shape for k, shape in _expected(other).items() if k.startswith(_BACKBONE)}
        if shapes == body:
            return f". They look like {backbone}" if backbone != config.backbone else ""
    return ""
