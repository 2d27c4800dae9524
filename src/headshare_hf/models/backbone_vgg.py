"""
VGG with batch normalisation for small images: Simonyan and Zisserman, arXiv:1409.1556.

Layout and tensor names are those of the repository Alibaba-MIIL/HeadSharingKD (`models/vgg.py`, its `*_bn` networks):
no hidden fully connected layers.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .backbone_staged import StagedBackbone, StageMaps


_WIDTHS = (64, 128, 256, 512, 512)
_POOL_AGAIN_FROM = 64


def _block(in_channels: int, out_channels: int, convs: int) -> nn.Sequential:
    """3x3 convolutions with normalisation and ReLU, the last ReLU left to the caller."""
    layers: list[nn.Module] = []
    for index in range(convs):
        layers.append(nn.Conv2d(in_channels if index == 0 else out_channels, out_channels, kernel_size=3, padding=1))
        layers += [nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


class VGG(StagedBackbone):
    """
    Five blocks of 3x3 convolutions with max pooling before blocks 1, 2 and 3.

    Before block 4 there is another pooling for images whose smaller side has 64 pixels or more, so that 32- and
    64-pixel images both leave maps of 4x4.

    Args:
        convs (`tuple[int, ...]`): Number of convolutions of each block.
        num_channels (`int`, *optional*, defaults to 3): Channels of the input images.
    """

    num_features = _WIDTHS[-1]
    min_size = 8

    def __init__(self, convs: tuple[int, int, int, int, int], num_channels: int = 3) -> None:
        super().__init__(num_channels)
        self.block0 = _block(num_channels, _WIDTHS[0], convs[0])
        self.block1 = _block(_WIDTHS[0], _WIDTHS[1], convs[1])
        self.block2 = _block(_WIDTHS[1], _WIDTHS[2], convs[2])
        self.block3 = _block(_WIDTHS[2], _WIDTHS[3], convs[3])
        self.block4 = _block(_WIDTHS[3], _WIDTHS[4], convs[4])
        self.reset_parameters()

    def forward_stages(self, pixel_values: torch.Tensor, maps: StageMaps) -> torch.Tensor:
        """Adds the output of block 0, noted after its ReLU in both lists, and those of the other blocks."""
        hidden_state = F.relu(self.block0(pixel_values), inplace=True)
        maps.add(hidden_state, hidden_state)
        for block in (self.block1, self.block2, self.block3):
            hidden_state = maps.relu(block(F.max_pool2d(hidden_state, kernel_size=2)))
        if min(pixel_values.shape[2:]) >= _POOL_AGAIN_FROM:
            hidden_state = F.max_pool2d(hidden_state, kernel_size=2)
        return maps.relu(self.block4(hidden_state))
