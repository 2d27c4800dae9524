"""Teachers that only ever give embeddings: whatever their classifier is, or without one."""

from typing import Any

import torch
from torch import nn

from ..models import HeadShareConfig, HeadShareForImageClassification, HeadShareModel, find_classifier


# Where a trained network would have classes.
_CLASSES = 2
_LINEAR = {"head_type": "linear", "head_scale": None, "head_margin": None, "head_gradient": "true"}


def as_teacher(model: Any) -> Any:
    """
    A [`HeadShareModel`] with a classifier of zeros, so that it is a teacher like any other; all else as it is. Methods that
    read the teacher's classes refuse it.

    Args:
        model (`Any`): A network, or `None`.
    """
    if not isinstance(model, HeadShareModel):
        return model
    place = model.config.name_or_path
    config = HeadShareConfig.from_dict({**model.config.to_dict(), **_LINEAR, "id2label": None})
    config.num_labels, config.name_or_path = _CLASSES, place
    # Its weights are those of the model itself: they are neither copied nor drawn.
    with torch.device("meta"):
        teacher = HeadShareForImageClassification(config)
    teacher.headshare = model
    teacher.classifier = nn.Linear(model.embedding_size, _CLASSES)
    return without_classes(teacher)


def without_classes(teacher: Any) -> Any:
    """Sets the classifier of a network to zero, and notes that it says nothing."""
    head = find_classifier(teacher)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
    head.to(next(teacher.base_model.parameters()).dtype)
    teacher.has_classes = False
    return teacher


def has_classes(teacher: Any) -> bool:
    """Whether the classifier of a teacher was trained, as far as is known."""
    return getattr(teacher, "has_classes", True)
