"""Tensors under new names: none is lost on the way."""

from collections.abc import Mapping

import torch


def rename_tensors(weights: Mapping[str, torch.Tensor], names: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """
    Tensors by their new names.

    Args:
        weights (`Mapping[str, torch.Tensor]`): Tensors by the source's names.
        names (`Mapping[str, str]`): New name of each tensor to keep, by its old one.

    Raises:
        ValueError: Two tensors get the same name; names both.
    """
    sources: dict[str, str] = {}
    for old, new in names.items():
        if new in sources:
            raise ValueError(
                f"{sources[new]} and {old} both become {new}; leave the one out that is not the network's"
            )
        sources[new] = old
    return {new: weights[old] for new, old in sources.items()}
