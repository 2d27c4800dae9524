"""The companion loss of a run, built from what student and teacher show of one image."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..evaluation.modes import evaluating
from ..losses import CompanionLoss, Features, FeatureShapes
from ..models import embedding_tap, find_classifier
from .config import DistillationConfig
from .config_checks import MAPS


def create_companion(
    student: nn.Module,
    teacher: nn.Module,
    args: DistillationConfig,
    train_dataset: Any,
    adapt: Callable[[torch.Tensor], torch.Tensor],
) -> CompanionLoss:
    """
    The companion that `args` names, drawn from the generator of the caller. Where the student predicts with the centers
    that it makes, they are kept in the student's classifier from here on.

    Each network is run once, in evaluation mode, on a black image: no batch statistics and no random numbers change.

    Args:
        student (`nn.Module`): What learns.
        teacher (`nn.Module`): What teaches.
        args ([`DistillationConfig`]): With a companion.
        train_dataset (`Any`): Its first image has the size of all.
        adapt (`Callable`): Makes images for the teacher of those for the student.

    Raises:
        ValueError: There is no first image, a network does not give what the loss reads, or the loss cannot compare the
            one with the other.
    """
    image = torch.zeros(1, *_image_shape(train_dataset))
    shapes = (
        feature_shapes(student, image, args.student_reads),
        feature_shapes(teacher, adapt(image), args.teacher_reads),
    )
    loss: Any = args.companion_loss
    companion = loss(*shapes, **(args.companion_options or {}))
    if args.predicts_with_centers:
        companion.keep_centers_in(find_classifier(student))
    return companion


def feature_shapes(model: nn.Module, image: torch.Tensor, reads: frozenset[str]) -> FeatureShapes:
    """
    What a network gives for one image `(1, num_channels, height, width)`.

    Args:
        model (`nn.Module`): An image classifier; its modes stay as they are.
        image (`torch.Tensor`): As the network takes it.
        reads (`frozenset[str]`): Fields of [`Features`] that are needed; the logits come anyway.

    Raises:
        ValueError: Feature maps are needed, and the network does not know of any. What the network refuses in any case
            passes as it is.
    """
    weight = next(model.parameters())
    tap = embedding_tap(model) if reads & {"embeddings", "head"} else None
    with evaluating(model), torch.no_grad():
        output = _run(model, image.to(weight.device, weight.dtype), bool(reads & MAPS))
    embeddings = getattr(output, "embeddings", None) if tap is None else tap.take()
    return Features(**feature_maps(output), embeddings=embeddings, logits=output.logits).shapes()


def feature_maps(output: Any) -> dict[str, Any]:
    """
    The maps in the output of a model, by their names in [`Features`]; `None` for those that it does not have.

    Of a model that does not say which map it pools, that is taken to be the last one; SimKD, which reads it, looks whether
    that is true.
    """
    hidden_states = getattr(output, "hidden_states", None)
    last = None if not hidden_states else hidden_states[-1]
    final_map = getattr(output, "final_map", None)
    return {
        "hidden_states": hidden_states,
        "pre_activations": getattr(output, "pre_activations", None),
        "final_map": last if final_map is None else final_map,
    }


def _run(model: nn.Module, image: torch.Tensor, with_maps: bool) -> Any:
    if not with_maps:
        return model(pixel_values=image)
    try:
        return model(pixel_values=image, output_hidden_states=True)
    except (TypeError, ValueError) as error:
        # Images of a wrong size, say, fail without maps too: then it is the network that says what is wrong.
        model(pixel_values=image)
        raise ValueError(
            f"{type(model).__name__} gives no feature maps ({error}); take a backbone with stages (resnet8x4, wrn_16_2, "
            "...), or a companion on embeddings or logits"
        ) from error


def _image_shape(dataset: Any) -> torch.Size:
    if not hasattr(dataset, "__getitem__"):
        raise ValueError(
            "a companion loss is built for the size of the images; give a `train_dataset` whose first image can be read, "
            f"train_dataset[0], in place of {type(dataset).__name__}"
        )
    return dataset[0]["pixel_values"].shape
