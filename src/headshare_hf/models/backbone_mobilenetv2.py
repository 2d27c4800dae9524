"""
MobileNetV2 of half width for small images: Sandler et al., arXiv:1801.04381.

Layout and tensor names are those of the repository Alibaba-MIIL/HeadSharingKD (`models/mobilenetv2.py`,
`mobile_half`).
"""

import torch
from torch import nn

from .backbone_staged import StagedBackbone, StageMaps


# Per group of blocks: expansion, channels, number of blocks, stride of the first one.
_GROUPS = (
    (1, 8, 1, 1),
    (6, 12, 2, 1),
    (6, 16, 3, 2),
    (6, 32, 4, 2),
    (6, 48, 3, 1),
    (6, 80, 3, 2),
    (6, 160, 1, 1),
)
_LAST_GROUP_OF_A_STAGE = (1, 2, 4, 6)


def _conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]


class InvertedResidual(nn.Module):
    """
    Expansion, depthwise convolution and a linear projection; the input is added where the shapes allow it.

    Args:
        in_channels (`int`): Channels of the input.
        out_channels (`int`): Channels of the output.
        stride (`int`): Stride of the depthwise convolution.
        expansion (`int`): The inner layers have `expansion * in_channels` channels.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * in_channels
        self.adds_input = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            *_conv_norm(in_channels, inner, kernel_size=1),
            nn.ReLU(inplace=True),
            *_conv_norm(inner, inner, kernel_size=3, stride=stride, groups=inner),
            nn.ReLU(inplace=True),
            *_conv_norm(inner, out_channels, kernel_size=1),
        )

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Maps `(batch_size, in_channels, height, width)` to the block's output, which has no activation."""
        residual = self.conv(hidden_state)
        return residual.add_(hidden_state) if self.adds_input else residual


class MobileNetV2(StagedBackbone):
    """
    Seven groups of inverted residuals of half width, then a 1x1 convolution to 1280 features.

    The stages end without activation, so `pre_activations` equals `hidden_states`.

    Args:
        num_channels (`int`, *optional*, defaults to 3): Channels of the input images.
    """

    num_features = 1280
    min_size = 16

    def __init__(self, num_channels: int = 3) -> None:
        super().__init__(num_channels)
        self.conv1 = nn.Sequential(*_conv_norm(num_channels, 16, kernel_size=3, stride=2), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList()
        width = 16
        for expansion, out_channels, count, stride in _GROUPS:
            group = [InvertedResidual(width, out_channels, stride, expansion)]
            group += [InvertedResidual(out_channels, out_channels, 1, expansion) for _ in range(count - 1)]
            self.blocks.append(nn.Sequential(*group))
            width = out_channels
        self.conv2 = nn.Sequential(*_conv_norm(width, self.num_features, kernel_size=1), nn.ReLU(inplace=True))
        self.reset_parameters()

    def forward_stages(self, pixel_values: torch.Tensor, maps: StageMaps) -> torch.Tensor:
        """Adds the stem's output and those of the groups after which resolution or purpose changes."""
        hidden_state = self.conv1(pixel_values)
        maps.add(hidden_state, hidden_state)
        for index, group in enumerate(self.blocks):
            hidden_state = group(hidden_state)
            if index in _LAST_GROUP_OF_A_STAGE:
                maps.add(hidden_state, hidden_state)
        return self.conv2(hidden_state)
