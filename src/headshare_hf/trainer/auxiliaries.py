"""Losses with parameters of their own: they are trained beside the student and never published."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..losses import Contrast, ContrastiveLoss
from ..models import find_classifier
from .checks import labels_of
from .config import DistillationConfig


def create_auxiliaries(
    student: nn.Module, teacher: nn.Module | None, args: DistillationConfig, train_dataset: Any
) -> nn.ModuleDict:
    """
    The losses of a run that have parameters, by the name of their weight in [`LossWeights`], drawn from the generator of
    the caller.

    Args:
        student (`nn.Module`): With one linear classifier on a pooled embedding, as the teacher.
        teacher (`nn.Module`): The teacher.
        args ([`DistillationConfig`]): Weights and options.
        train_dataset (`Any`): Says how many images there are, and their classes.

    Raises:
        ValueError: The data set does not say what a loss needs of it.
    """
    auxiliaries = nn.ModuleDict()
    if args.loss_weights.contrastive and teacher is not None:
        auxiliaries["contrastive"] = _contrastive(student, teacher, args, train_dataset)
    return auxiliaries


def _contrastive(
    student: nn.Module, teacher: nn.Module, args: DistillationConfig, train_dataset: Any
) -> ContrastiveLoss:
    labels = None if train_dataset is None else labels_of(train_dataset)
    if labels is None:
        raise ValueError(
            "the contrastive loss needs the class of every training image before the first step; give `train_dataset` an "
            "attribute `labels`, a tensor of class numbers"
        )
    if not getattr(train_dataset, "with_index", True):
        raise ValueError(
            "the contrastive loss needs the position of every image of a batch; build the training set with "
            "`ImageClassificationDataset(..., with_index=True)`"
        )
    widths = find_classifier(student).in_features, find_classifier(teacher).in_features
    options = {
        "num_negatives": args.num_negatives,
        "negatives": args.negatives,
        "embedding_size": args.contrastive_size,
    }
    given: Any = {name: value for name, value in options.items() if value is not None}
    return ContrastiveLoss(*widths, labels, seed=args.seed, **given)


def auxiliary_losses(
    auxiliaries: nn.ModuleDict,
    student_embeddings: torch.Tensor | None,
    teacher_embeddings: torch.Tensor | None,
    inputs: Mapping[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """
    The value of each loss on a batch, by the name of its weight.

    Args:
        auxiliaries (`nn.ModuleDict`): What [`create_auxiliaries`] made.
        student_embeddings (`torch.Tensor` of shape `(batch_size, own_size)`): What the student's classifier reads.
        teacher_embeddings (`torch.Tensor` of shape `(batch_size, teacher_size)`): What the teacher's classifier reads.
        inputs (`Mapping[str, torch.Tensor]`):
            The batch. The contrastive loss reads its `index` `(batch_size,)`, positions in the training set. A data set
            that draws its own negatives may add them as `negatives` `(batch_size, num_negatives)`, positions likewise.

    Raises:
        ValueError: The batch has no `index`.
    """
    if "contrastive" not in auxiliaries:
        return {}
    if "index" not in inputs:
        raise ValueError(
            "the batch has no column `index`, which the contrastive loss finds the images of a batch by; add the position "
            "of each image in the training set to its items, as `ImageClassificationDataset(..., with_index=True)` does"
        )
    index, negatives = inputs["index"], inputs.get("negatives")
    contrast = None if negatives is None else Contrast(index, negatives)
    loss = auxiliaries["contrastive"]
    return {"contrastive": loss(student_embeddings, teacher_embeddings, index, contrast)}
