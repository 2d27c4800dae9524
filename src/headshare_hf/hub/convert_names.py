"""Tensors under new names: none is lost on the way, and none is broken."""

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


def check_finite(weights: Mapping[str, torch.Tensor]) -> None:
    """
    Refuses NaN and infinite values.

    Args:
        weights (`Mapping[str, torch.Tensor]`): Tensors by the source's names.

    Raises:
        ValueError: A tensor has one; all such tensors are named.
    """
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(
            f"NaN or infinite values in {', '.join(broken)}; the training diverged, take an earlier checkpoint"
        )
