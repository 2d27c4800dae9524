"""Weights of other layouts, in this package's names."""

from collections.abc import Mapping

import torch

from ..models import HeadShareConfig, HeadShareForImageClassification, HeadShareModel
from ..models.model_checks import check_finite
from ..models.source_layouts import unwrapped_names
from .convert_layouts import MOBILEFACENET_1X, body_prefix, classifier_names, near_layout, renamed_mobilefacenet
from .convert_names import rename_tensors


_BASE = "headshare."


def convert_state_dict(
    state_dict: Mapping[str, torch.Tensor], config: HeadShareConfig, partial: bool = False
) -> dict[str, torch.Tensor]:
    """
    Renames the tensors of a network with a linear classifier to those of [`HeadShareForImageClassification`].

    Such files come from Alibaba-MIIL/HeadSharingKD and HobbitLong/RepDistiller, and from timm. Face networks that were
    saved with a classifier are taken too, see [`convert_backbone_state_dict`].

    Args:
        state_dict (`Mapping[str, torch.Tensor]`):
            Tensors by the source's names, e.g. `layer1.0.conv1.weight`; all of them may begin with `module.`.
        config ([`HeadShareConfig`]): The network that they belong to.
        partial (`bool`, *optional*, defaults to `False`): Whether tensors of the network may be left out.

    Returns:
        `dict[str, torch.Tensor]`: The same tensors, ready for `load_state_dict`.

    Raises:
        ValueError: Tensors are unknown, missing, of another shape or not finite, or two get one name; all of them are
            named.
    """
    with torch.device("meta"):
        expected = HeadShareForImageClassification(config).state_dict()
    weights = _named(state_dict, config)
    body, classifiers = _BASE + body_prefix(config.backbone), classifier_names(config.backbone)
    names = {name: _rename(name, expected, body, classifiers) for name in weights}
    return _converted(weights, names, expected, config, partial)


def convert_backbone_state_dict(
    state_dict: Mapping[str, torch.Tensor], config: HeadShareConfig
) -> dict[str, torch.Tensor]:
    """
    Renames the tensors of a network without classifier to those of [`HeadShareModel`].

    Such files come from deepinsight/insightface (`recognition/arcface_torch`: `r18`, `r34`, `r50`, `r100` are
    `iresnet18` to `iresnet100`, `mbf` is `mobilefacenet`), Xiaoccer/MobileFaceNet_Pytorch (`mobilefacenet_112x96`, the
    entry `net_state_dict` of its checkpoints) and TreB1eN/InsightFace_Pytorch (its MobileFaceNet is
    `mobilefacenet_1x`). All have every counter `num_batches_tracked`, so none may be left out. Load the result into
    `model.headshare` to start a [`HeadShareForImageClassification`] from it.

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
        ValueError: As [`convert_state_dict`].
    """
    with torch.device("meta"):
        expected = HeadShareModel(config).state_dict()
    weights = _named(state_dict, config)
    names = {name: body_prefix(config.backbone) + name for name in weights}
    return _converted(weights, names, expected, config)


def _named(state_dict: Mapping[str, torch.Tensor], config: HeadShareConfig) -> dict[str, torch.Tensor]:
    """The tensors by the names that their network has at its source, without what wraps it."""
    weights = {name: state_dict[key] for key, name in unwrapped_names(state_dict).items()}
    return renamed_mobilefacenet(weights) if config.backbone == MOBILEFACENET_1X else weights


def _rename(name: str, expected: Mapping[str, torch.Tensor], body: str, classifiers: tuple[str, ...]) -> str:
    if body + name in expected:
        return body + name
    owner, _, leaf = name.rpartition(".")
    return f"classifier.{leaf}" if owner in classifiers else name


def _converted(
    weights: Mapping[str, torch.Tensor],
    names: Mapping[str, str],
    expected: Mapping[str, torch.Tensor],
    config: HeadShareConfig,
    partial: bool = False,
) -> dict[str, torch.Tensor]:
    """The tensors by their new names, if these are exactly those that are expected."""
    converted = rename_tensors(weights, names)
    problems = _problems(converted, expected, partial)
    if problems:
        classes = f" with {config.num_labels} classes" if "classifier.weight" in expected else ""
        near = near_layout(weights)
        hint = f". They look like {near}" if near not in (None, config.backbone) else ""
        raise ValueError(
            f"the weights are not those of {config.backbone} for `image_size` {config.image_size}{classes} "
            f"({problems}){hint}"
        )
    check_finite(weights.items())
    return converted


def _problems(converted: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], partial: bool) -> str:
    """What does not fit, tensor by tensor; empty where everything does."""
    shared = {name: tensor for name, tensor in sorted(converted.items()) if name in expected}
    extra = sorted(converted.keys() - shared.keys())
    missing = [] if partial else sorted(expected.keys() - converted.keys())
    misshapen = [
        f"{name} is {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
        for name, tensor in shared.items()
        if tensor.shape != expected[name].shape
    ]
    other_kind = [
        f"{name} is {tensor.dtype} instead of {expected[name].dtype}"
        for name, tensor in shared.items()
        if tensor.is_floating_point() != expected[name].is_floating_point()
    ]
    problems = [("unknown", extra), ("missing", missing), ("of another shape", misshapen), ("no weights", other_kind)]
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems if names)
