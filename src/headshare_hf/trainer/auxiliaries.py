"""Losses that may have parameters of their own: they are trained beside the student and never published."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..losses import Contrast, ContrastiveLoss, Features, LossWeights
from ..models import find_classifier
from .checks import labels_of
from .companions import create_companion
from .config import DistillationConfig


def create_auxiliaries(
    student: nn.Module,
    teacher: nn.Module | None,
    args: DistillationConfig,
    train_dataset: Any,
    adapt: Callable[[torch.Tensor], torch.Tensor],
) -> nn.ModuleDict:
    """
    The losses of a run that are modules, by the name of their weight in [`LossWeights`], drawn from the generator of
    the caller.

    Args:
        student (`nn.Module`): What learns; for the contrastive loss with one linear classifier, as the teacher.
        teacher (`nn.Module`): The teacher.
        args ([`DistillationConfig`]): Weights and options.
        train_dataset (`Any`): Says how many images there are, their classes, and their size.
        adapt (`Callable`): Makes images for the teacher of those for the student.

    Raises:
        ValueError: The data set does not say what a loss needs of it, or as [`create_companion`].
    """
    auxiliaries = nn.ModuleDict()
    if args.loss_weights.contrastive and teacher is not None:
        auxiliaries["contrastive"] = _contrastive(student, teacher, args, train_dataset)
    if args.companion_name is not None and teacher is not None:
        auxiliaries["companion"] = create_companion(student, teacher, args, train_dataset, adapt)
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
    weights: LossWeights,
    student: Features,
    teacher: Features,
    inputs: Mapping[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """
    The value of each loss on a batch, by the name of its weight; a loss of weight 0 is not computed.

    Args:
        auxiliaries (`nn.ModuleDict`): What [`create_auxiliaries`] made.
        weights ([`LossWeights`]): Of the run.
        student ([`Features`]): What the student made of the batch, the embeddings being what its own classifier reads.
        teacher ([`Features`]): What the teacher made of it.
        inputs (`Mapping[str, torch.Tensor]`):
            The batch, with `labels`. The contrastive loss reads its `index` `(batch_size,)`, positions in the training
            set. A data set that draws its own negatives may add them as `negatives` `(batch_size, num_negatives)`,
            positions likewise.

    Raises:
        ValueError: The batch has no `index`.
    """
    losses = {}
    if weights.contrastive:
        loss = auxiliaries["contrastive"]
        losses["contrastive"] = loss(student.embeddings, teacher.embeddings, *_contrast(inputs))
    if weights.companion:
        losses["companion"] = auxiliaries["companion"](student, teacher, inputs["labels"])
    return losses


def _contrast(inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, Contrast | None]:
    if "index" not in inputs:
        raise ValueError(
            "the batch has no column `index`, which the contrastive loss finds the images of a batch by; add the position "
            "of each image in the training set to its items, as `ImageClassificationDataset(..., with_index=True)` does"
        )
    index, negatives = inputs["index"], inputs.get("negatives")
    return index, None if negatives is None else Contrast(index, negatives)
