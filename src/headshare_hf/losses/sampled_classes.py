"""A random part of the classes in place of all (Partial FC, An et al., arXiv 2203.15565)."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from ..data.randomness import device_bits, random_bits
from .class_matrix import ClassMatrix


# Number of this purpose among the streams of random bits.
_STREAM = 0x5A3D


def sample_classes(
    classes: ClassMatrix, columns: torch.Tensor, sample_rate: float, seed: int, step: int, start: int = 0
) -> tuple[ClassMatrix, torch.Tensor]:
    """
    The classes of the batch and about `sample_rate` of the others.

    Each class is drawn for itself, from its number, seed and step. So the same classes are drawn however many
    processes share them; how many there are varies a little from step to step. An accelerator draws by itself and is not
    waited for.

    Args:
        classes ([`ClassMatrix`]): The classifier, or the part of it that this process holds.
        columns (`torch.Tensor` of `int64` and shape `(batch_size,)`):
            The label of each image as a row of `classes`; any number that is none stands for a class elsewhere.
        sample_rate (`float`): Probability of a class that is no label, in (0, 1].
        seed (`int`): Of the run.
        step (`int`): Number of the training step.
        start (`int`, *optional*, defaults to 0): Number of the first class in `classes`.

    Returns:
        `tuple[ClassMatrix, torch.Tensor]`: The chosen rows, and the columns as positions among these. A class elsewhere has
        a position that is none.

    Raises:
        ValueError: `sample_rate` is outside (0, 1].
    """
    if not 0 < sample_rate <= 1:
        raise ValueError(f"`sample_rate` is {sample_rate}; it must be above 0 and at most 1")
    if sample_rate == 1 or not len(classes):
        return classes, columns
    here = (columns >= 0) & (columns < len(classes))
    drawn = _drawn(len(classes), columns.device, sample_rate, seed, step, start)
    # Labels elsewhere mark a place behind the last class.
    drawn[torch.where(here, columns, len(classes))] = True
    chosen, padded = _numbers(drawn[:-1], sample_rate, len(columns))
    places = torch.searchsorted(chosen, columns)
    # A place behind the last one holds no class; perhaps none was drawn at all.
    here = here & (F.pad(chosen, (0, 1), value=-1)[places] == columns)
    return replace(classes, chosen=chosen, padded=padded), torch.where(here, places, -1)


def _drawn(classes: int, device: torch.device, rate: float, seed: int, step: int, start: int) -> torch.Tensor:
    """Whether each class is drawn, and one place more."""
    if _would_be_waited_for(device):
        bits = device_bits(seed, step, torch.arange(start, start + classes + 1, device=device), _STREAM)
    else:
        # The same bits, in less time.
        numbers = np.arange(start, start + classes + 1)
        bits = torch.from_numpy(random_bits(seed, step, numbers, _STREAM).view(np.int64))
    # In the order of unsigned numbers.
    return ((bits ^ -(2**63)) < int(rate * 2**64) - 2**63).to(device)


def _numbers(drawn: torch.Tensor, rate: float, labels: int) -> tuple[torch.Tensor, bool]:
    """The classes drawn, in ascending order, and whether numbers that are no class follow."""
    if not _would_be_waited_for(drawn.device):
        return drawn.nonzero().squeeze(1), False
    # How many there are is known on the device alone: room for more than it can be, 8 standard deviations from the mean.
    count = len(drawn)
    room = math.ceil(rate * count + 8 * math.sqrt(count * rate * (1 - rate))) + labels
    return torch.nonzero_static(drawn, size=min(room, count), fill_value=count).squeeze(1), True


def _would_be_waited_for(device: torch.device) -> bool:
    # Where `nonzero_static` is; elsewhere a wait is better than an error.
    return device.type == "cuda"
