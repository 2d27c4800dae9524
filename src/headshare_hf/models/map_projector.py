"""The projector between the last feature map of one network and the classifier of another."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from .backbone import BackboneOutput


class MapProjector(nn.Module):
    """
    A bottleneck from the student's last feature map to the shape of the teacher's (SimKD, arXiv 2203.14001): 1×1, 3×3
    and 1×1 convolutions, each with batch normalisation and ReLU. What it returns is pooled into the embedding that the
    teacher's classifier reads, so that it is part of the student and published with it.

    Args:
        in_channels (`int`): Channels of the student's last map.
        out_channels (`int`): Channels of the teacher's, the width of its embedding.
        reduction (`int`, *optional*, defaults to 2): Of how many times fewer channels the bottleneck is.
        size (`Sequence[int]`, *optional*):
            Height and width that a larger map is averaged down to first: those of the teacher's map.

    Raises:
        ValueError: `reduction` leaves no channel.
    """

    def __init__(
        self, in_channels: int, out_channels: int, reduction: int = 2, size: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        if not 1 <= reduction <= out_channels:
            raise ValueError(f"`reduction` is {reduction}; it must be between 1 and `out_channels`, {out_channels}")
        self.size = size
        inner = out_channels // reduction
        self.layers = nn.Sequential(
            *_normalised(nn.Conv2d(in_channels, inner, kernel_size=1, bias=False)),
            *_normalised(nn.Conv2d(inner, inner, kernel_size=3, padding=1, bias=False)),
            *_normalised(nn.Conv2d(inner, out_channels, kernel_size=1, bias=False)),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps `(batch_size, in_channels, height, width)` to `(batch_size, out_channels, height, width)`, or `size`."""
        return F.relu(self._pre_activation(maps))

    def project(self, features: BackboneOutput) -> BackboneOutput:
        """
        The output of a network that ends in this projector: its maps are those of the backbone and one more.

        Args:
            features ([`BackboneOutput`]): Of a backbone that returns its `final_map`.
        """
        pre_activation = self._pre_activation(cast(torch.Tensor, features.final_map))
        final_map = F.relu(pre_activation)
        embeddings = F.avg_pool2d(final_map, final_map.shape[-2:]).flatten(1)
        if features.hidden_states is None or features.pre_activations is None:
            return BackboneOutput(embeddings, final_map=final_map)
        maps = (*features.hidden_states, final_map), (*features.pre_activations, pre_activation)
        return BackboneOutput(embeddings, *maps, final_map)

    def _pre_activation(self, maps: torch.Tensor) -> torch.Tensor:
        if self.size is not None:
            height, width = (min(own, wanted) for own, wanted in zip(maps.shape[2:], self.size, strict=True))
            maps = F.adaptive_avg_pool2d(maps, (height, width))
        return self.layers[:-1](maps)


def _normalised(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]
