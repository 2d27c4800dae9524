"""How soft the outputs are that the KL parts compare."""

import math
from typing import Any, cast

from torch import nn

from ..models import CosineHead, find_classifier
from .config import DistillationConfig


DEFAULT_TEMPERATURE = 4.0


def default_kd_scale(num_labels: int) -> float:
    """
    √2 · ln(C − 1), the scale at which a softmax of cosines over C classes is neither flat nor one-hot (Zhang et al.,
    AdaCos, arXiv 1905.00292, equation 14): 16.2 for the 93,431 people of MS1MV3. At a scale
    of 64 a cosine of 0.7 would get all but 3e-15 of the mass there, which is a label and teaches nothing more.

    Args:
        num_labels (`int`): Number of classes C.
    """
    # From two classes on the logarithm is that of at least one other class.
    return round(math.sqrt(2) * math.log(max(num_labels - 1, 2)), 2)


def resolve_softening(args: DistillationConfig, student: nn.Module, teacher: nn.Module | None) -> None:
    """
    Fills in `kd_scale` or `temperature` of `args` where neither is given and the method has a KL part: `kd_scale` where
    both outputs are cosines, and otherwise `temperature`.
    """
    weights = args.loss_weights
    softened = weights.kd > 0 or weights.teacher_head > 0
    if teacher is None or not softened or args.kd_scale is not None or args.temperature is not None:
        return
    heads = [teacher, student] if weights.kd > 0 else [teacher]
    if all(_has_cosine_head(model) for model in heads):
        args.kd_scale = default_kd_scale(cast(Any, student).config.num_labels)
    else:
        args.temperature = DEFAULT_TEMPERATURE


def _has_cosine_head(model: nn.Module) -> bool:
    # A teacher that gives logits alone may have any kind of classifier.
    try:
        return isinstance(find_classifier(model), CosineHead)
    except ValueError:
        return False
