"""What several companion losses compute: unit vectors, and maps of the same size."""

import torch
from torch.nn import functional as F


# As in `torch.nn.functional.normalize`.
_SMALLEST_LENGTH = 1e-12


def unit(vectors: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """
    `vectors` divided by their length; vectors of length zero stay zero and get no gradient.

    `torch.nn.functional.normalize` would multiply the gradient of a zero vector by 1e12, and dead channels are zero.

    Args:
        vectors (`torch.Tensor`): Of any shape.
        dim (`int`, *optional*, defaults to -1): Along which the length is taken.
    """
    lengths = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return vectors / torch.where(lengths > _SMALLEST_LENGTH, lengths, torch.inf)


def pool_alike(student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Averages both maps, `(batch_size, channels, height, width)`, down to the smaller height and the smaller width.

    Adaptive pooling takes sizes that are no multiples too: its cells then overlap.
    """
    height, width = (min(sizes) for sizes in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return pool_to(student, (height, width)), pool_to(teacher, (height, width))


def pool_to(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Averages `(batch_size, channels, height, width)` to `size`, a height and a width."""
    return maps if tuple(maps.shape[2:]) == size else F.adaptive_avg_pool2d(maps, size)


def attention_maps(maps: torch.Tensor) -> torch.Tensor:
    """
    Mean square over the channels as unit vectors over the positions: where a network looks.

    Args:
        maps (`torch.Tensor` of shape `(batch_size, channels, height, width)`): Feature maps.

    Returns:
        `torch.Tensor` of shape `(batch_size, height * width)`.
    """
    return unit(maps.square().mean(dim=1).flatten(1))
