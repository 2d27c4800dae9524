"""A last batch that would end a run after an epoch, refused before the first step."""

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn

from ..data import collate
from ..evaluation.modes import evaluating
from .config import DistillationConfig


def check_last_batch(trained: nn.Module, args: DistillationConfig, train_dataset: Any) -> None:
    """
    Checks, before an epoch has been trained for nothing, that no batch has a single image where layers normalise vectors.

    Args:
        trained (`nn.Module`): The student with all that is trained beside it.
        args ([`DistillationConfig`]): With the batch size of this process.
        train_dataset (`Any`): What is trained on.

    Raises:
        ValueError: One has.
    """
    # With several processes accelerate fills the last batches up with images of the first ones.
    if args.dataloader_drop_last or args.world_size > 1 or not hasattr(train_dataset, "__len__"):
        return
    count, batch = len(train_dataset), args.train_batch_size
    ends_before = 0 < args.max_steps * args.gradient_accumulation_steps <= count // batch
    if 1 not in (count % batch, batch) or (ends_before and batch > 1):
        return
    norms = _norms_of_vectors(trained, train_dataset, args.device)
    if norms:
        raise ValueError(
            f"batches of {batch} leave a single image of {count} for the last one, which `{norms[0]}` cannot normalise; set "
            "another `per_device_train_batch_size` or, where that is above 1, `dataloader_drop_last`"
        )


@torch.no_grad()
def _norms_of_vectors(trained: nn.Module, train_dataset: Any, device: torch.device) -> list[str]:
    """Batch normalisations that see one vector an image; of losses beside the student, all that could."""
    dimensions: dict[str, int] = {}
    with ExitStack() as hooks:
        for name, layer in trained.named_modules():
            if isinstance(layer, nn.BatchNorm1d):
                dimensions[name] = 2
                note = partial(_note_dimensions, dimensions, name)
                hooks.callback(layer.register_forward_pre_hook(note).remove)
        if dimensions:
            image = collate([train_dataset[0]])["pixel_values"].to(device)
            with evaluating(trained):
                trained.to(device)(pixel_values=image)
    return [name for name, count in dimensions.items() if count == 2]


def _note_dimensions(dimensions: dict[str, int], name: str, layer: nn.Module, inputs: Any) -> None:
    dimensions[name] = inputs[0].ndim
