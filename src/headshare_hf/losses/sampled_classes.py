"""A random part of the classes in place of all (Partial FC, An et al., arXiv 2203.15565)."""

from dataclasses import replace

import numpy as np
import torch

from ..data.randomness import random_bits
from .class_matrix import ClassMatrix


# Number of this purpose among the streams of random bits.
_STREAM = 0x5A3D


def sample_classes(
    classes: ClassMatrix, columns: torch.Tensor, sample_rate: float, seed: int, step: int, start: int = 0
) -> tuple[ClassMatrix, torch.Tensor]:
    """
    The classes of the batch and about `sample_rate` of the others.

    Each class is drawn for itself, from its number, seed and step. So the same classes are drawn however many
    processes share them; how many there are varies a little from step to step.

    Args:
        classes ([`ClassMatrix`]): The classifier, or the part of it that this process holds.
        columns (`torch.Tensor` of `int64` and shape `(batch_size,)`):
            The label of each image as a row of `classes`; any number that is none stands for a class elsewhere.
        sample_rate (`float`): Probability of a class that is no label, in (0, 1].
        seed (`int`): Of the run.
        step (`int`): Number of the training step.
        start (`int`, *optional*, defaults to 0): Number of the first class in `classes`.

    Returns:
        `tuple[ClassMatrix, torch.Tensor]`: The chosen rows, and the columns as positions among these, -1 for a class
        elsewhere.

    Raises:
        ValueError: `sample_rate` is outside (0, 1].
    """
    if not 0 < sample_rate <= 1:
        raise ValueError(f"`sample_rate` is {sample_rate}; it must be above 0 and at most 1")
    if sample_rate == 1:
        return classes, columns
    here = (columns >= 0) & (columns < len(classes))
    bits = random_bits(seed, step, np.arange(start, start + len(classes)), _STREAM)
    drawn = torch.from_numpy(bits < np.uint64(int(sample_rate * 2**64))).to(columns.device)
    drawn[columns[here]] = True
    chosen = drawn.nonzero().squeeze(1)
    return replace(classes, chosen=chosen), torch.where(here, torch.searchsorted(chosen, columns), -1)
