"""
ShuffleNets for small images: Zhang et al., arXiv:1707.01083 (V1), and Ma et al., arXiv:1807.11164 (V2).

Layout and tensor names are those of the repository Alibaba-MIIL/HeadSharingKD (`models/ShuffleNetv1.py`,
`models/ShuffleNetv2.py`): a 1x1 stem of stride 1 and no max pooling.
"""

import math
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from .backbone_staged import ResidualStage, StagedBackbone, StageMaps


def channel_shuffle(hidden_state: torch.Tensor, groups: int) -> torch.Tensor:
    """Interleaves the `groups` parts of the channels of `(batch_size, channels, height, width)`."""
    shuffled = hidden_state.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
    # Flattening ends the layout NHWC, in which convolutions can be faster.
    is_last = hidden_state.is_contiguous(memory_format=torch.channels_last)
    return shuffled.contiguous(memory_format=torch.channels_last) if is_last else shuffled


def _conv1x1(in_channels: int, out_channels: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, groups=groups, bias=False)


def _depthwise(channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel_size=3, stride=stride, padding=1, groups=channels, bias=False)


class _ShuffleNet(StagedBackbone):
    """Stem, three stages that halve the resolution, and the initialisation of both versions."""

    min_size = 8

    def __init__(self, num_channels: int) -> None:
        super().__init__(num_channels)
        self.conv1 = _conv1x1(num_channels, 24)
        self.bn1 = nn.BatchNorm2d(24)

    def forward_stem(self, pixel_values: torch.Tensor, maps: StageMaps) -> torch.Tensor:
        """Adds the stem's output, noted after its ReLU in both lists."""
        hidden_state = F.relu(self.bn1(self.conv1(pixel_values)), inplace=True)
        maps.add(hidden_state, hidden_state)
        return hidden_state

    def init_conv(self, conv: nn.Conv2d) -> None:
        """Draws the weight as `torch.nn.Conv2d` does: neither paper nor the repository names another distribution."""
        nn.init.kaiming_uniform_(conv.weight, a=math.sqrt(5))


class ShuffleUnitV1(nn.Module):
    """
    Grouped 1x1 convolutions around a depthwise one, with a channel shuffle; returns its result before the last ReLU.

    Args:
        in_channels (`int`): Channels of the input.
        out_channels (`int`): Channels of the output.
        stride (`int`): 1 adds the input, 2 appends its average pooling.
        groups (`tuple[int, int]`): Groups of the first and of the last convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: tuple[int, int]) -> None:
        super().__init__()
        self.halves = stride == 2
        self.groups = groups[0]
        new_channels = out_channels - in_channels if self.halves else out_channels
        inner = new_channels // 4
        self.conv1 = _conv1x1(in_channels, inner, groups[0])
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _depthwise(inner, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = _conv1x1(inner, new_channels, groups[1])
        self.bn3 = nn.BatchNorm2d(new_channels)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Maps `(batch_size, in_channels, height, width)` to the unit's pre-activation."""
        residual = F.relu(self.bn1(self.conv1(hidden_state)), inplace=True)
        residual = self.conv2(channel_shuffle(residual, self.groups))
        # The ReLU after the depthwise convolution is not in the paper but in the networks this one must match.
        residual = self.bn3(self.conv3(F.relu(self.bn2(residual), inplace=True)))
        if not self.halves:
            return residual.add_(hidden_state)
        return torch.cat([residual, F.avg_pool2d(hidden_state, kernel_size=3, stride=2, padding=1)], dim=1)


class ShuffleV1(_ShuffleNet):
    """
    ShuffleNet V1 with three groups and stages of 240, 480 and 960 channels.

    Args:
        num_channels (`int`, *optional*, defaults to 3): Channels of the input images.
    """

    num_features = 960

    def __init__(self, num_channels: int = 3) -> None:
        super().__init__(num_channels)
        self.layer1 = self._stage(24, 240, units=4, first_groups=1)
        self.layer2 = self._stage(240, 480, units=8, first_groups=3)
        self.layer3 = self._stage(480, 960, units=4, first_groups=3)
        self.reset_parameters()

    @staticmethod
    def _stage(in_channels: int, out_channels: int, units: int, first_groups: int) -> ResidualStage:
        others = [ShuffleUnitV1(out_channels, out_channels, 1, (3, 3)) for _ in range(units - 1)]
        return ResidualStage(ShuffleUnitV1(in_channels, out_channels, 2, (first_groups, 3)), *others)

    def forward_stages(self, pixel_values: torch.Tensor, maps: StageMaps) -> torch.Tensor:
        """Adds the outputs of the stem and of the three stages."""
        hidden_state = self.forward_stem(pixel_values, maps)
        for stage in (self.layer1, self.layer2, self.layer3):
            hidden_state = maps.relu(stage(hidden_state))
        return hidden_state


class ShuffleUnitV2(nn.Module):
    """
    Passes half of the channels on as they are, transforms the other half, and shuffles.

    Args:
        channels (`int`): Channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = _conv1x1(half, half)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = _depthwise(half, stride=1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = _conv1x1(half, half)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Keeps the shape `(batch_size, channels, height, width)`."""
        passed, pre_activation = self.branches(hidden_state)
        return channel_shuffle(torch.cat([passed, F.relu(pre_activation, inplace=True)], dim=1), groups=2)

    def branches(self, hidden_state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The half that is passed on, and the transformed half before its last ReLU."""
        passed, residual = hidden_state.chunk(2, dim=1)
        residual = F.relu(self.bn1(self.conv1(residual)), inplace=True)
        residual = self.bn2(self.conv2(residual))
        return passed, self.bn3(self.conv3(residual))


class ShuffleDownV2(nn.Module):
    """
    Halves the resolution: both branches transform the whole input.

    Args:
        in_channels (`int`): Channels of the input.
        out_channels (`int`): Channels of the output, half of them from each branch.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = _depthwise(in_channels, stride=2)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = _conv1x1(in_channels, half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = _conv1x1(in_channels, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = _depthwise(half, stride=2)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = _conv1x1(half, half)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Maps `(batch_size, in_channels, h, w)` to `(batch_size, out_channels, ceil(h / 2), ceil(w / 2))`."""
        short = self.bn2(self.conv2(self.bn1(self.conv1(hidden_state))))
        long = F.relu(self.bn3(self.conv3(hidden_state)), inplace=True)
        long = self.bn5(self.conv5(self.bn4(self.conv4(long))))
        return channel_shuffle(F.relu(torch.cat([short, long], dim=1), inplace=True), groups=2)


class ShuffleV2(_ShuffleNet):
    """
    ShuffleNet V2 of width 1.

    `pre_activations` of a stage are in the order before the last shuffle: the half passed on, then the transformed
    half before its ReLU.

    Args:
        num_channels (`int`, *optional*, defaults to 3): Channels of the input images.
    """

    num_features = 1024

    def __init__(self, num_channels: int = 3) -> None:
        super().__init__(num_channels)
        self.layer1 = self._stage(24, 116, units=3)
        self.layer2 = self._stage(116, 232, units=7)
        self.layer3 = self._stage(232, 464, units=3)
        self.conv2 = _conv1x1(464, self.num_features)
        self.bn2 = nn.BatchNorm2d(self.num_features)
        self.reset_parameters()

    @staticmethod
    def _stage(in_channels: int, out_channels: int, units: int) -> nn.Sequential:
        return nn.Sequential(
            ShuffleDownV2(in_channels, out_channels), *(ShuffleUnitV2(out_channels) for _ in range(units))
        )

    def forward_stages(self, pixel_values: torch.Tensor, maps: StageMaps) -> torch.Tensor:
        """Adds the outputs of the stem and of the three stages."""
        hidden_state = self.forward_stem(pixel_values, maps)
        for stage in (self.layer1, self.layer2, self.layer3):
            *earlier, last = stage
            for unit in earlier:
                hidden_state = unit(hidden_state)
            hidden_state = self._forward_last(cast(ShuffleUnitV2, last), hidden_state, maps)
        return F.relu(self.bn2(self.conv2(hidden_state)), inplace=True)

    @staticmethod
    def _forward_last(unit: ShuffleUnitV2, hidden_state: torch.Tensor, maps: StageMaps) -> torch.Tensor:
        if not maps.wanted:
            return unit(hidden_state)
        passed, pre_activation = unit.branches(hidden_state)
        hidden_state = channel_shuffle(torch.cat([passed, F.relu(pre_activation)], dim=1), groups=2)
        maps.add(hidden_state, torch.cat([passed, pre_activation], dim=1))
        return hidden_state
