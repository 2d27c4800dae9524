"""
ResNets for small images: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385.

Layout and tensor names are those of the repository Alibaba-MIIL/HeadSharingKD (`models/resnet.py`,
`models/resnetv2.py`), so that its checkpoints fit.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .backbone_staged import ResidualStage, StagedBackbone, StageMaps


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """`None` where the input can be added as it is; otherwise the paper's option B, a 1x1 convolution."""
    if stride == 1 and in_channels == out_channels:
        return None
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """
    Two 3x3 convolutions and a shortcut; returns the sum before its ReLU.

    Args:
        in_channels (`int`): Channels of the input.
        out_channels (`int`): Channels of the output.
        stride (`int`): Stride of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = _conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Maps `(batch_size, in_channels, height, width)` to the block's pre-activation."""
        residual = F.relu(self.bn1(self.conv1(hidden_state)), inplace=True)
        residual = self.bn2(self.conv2(residual))
        return residual.add_(hidden_state if self.downsample is None else self.downsample(hidden_state))


class Bottleneck(nn.Module):
    """
    A 3x3 convolution between two 1x1 ones, and a shortcut; returns the sum before its ReLU.

    Args:
        in_channels (`int`): Channels of the input.
        width (`int`): Channels of the inner convolution; the output has four times as many.
        stride (`int`): Stride of the inner convolution.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = _shortcut(in_channels, 4 * width, stride)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Maps `(batch_size, in_channels, height, width)` to the block's pre-activation."""
        residual = F.relu(self.bn1(self.conv1(hidden_state)), inplace=True)
        residual = F.relu(self.bn2(self.conv2(residual)), inplace=True)
        residual = self.bn3(self.conv3(residual))
        return residual.add_(hidden_state if self.shortcut is None else self.shortcut(hidden_state))


class CifarResNet(StagedBackbone):
    """
    The ResNet of section 4.2 of the paper: three stages of basic blocks at full, half and quarter resolution.

    Args:
        depth (`int`): Number of layers, the classifier included: 6n + 2 with n blocks a stage.
        widths (`tuple[int, int, int, int]`): Channels of the stem and of the stages.
        num_channels (`int`, *optional*, defaults to 3): Channels of the input images.
    """

    min_size = 4

    def __init__(self, depth: int, widths: tuple[int, int, int, int], num_channels: int = 3) -> None:
        super().__init__(num_channels)
        self.num_features = widths[3]
        blocks = (depth - 2) // 6
        self.conv1 = _conv3x3(num_channels, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = self._stage(widths[0], widths[1], blocks, stride=1)
        self.layer2 = self._stage(widths[1], widths[2], blocks, stride=2)
        self.layer3 = self._stage(widths[2], widths[3], blocks, stride=2)
        self.reset_parameters()

    @staticmethod
    def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> ResidualStage:
        others = [BasicBlock(out_channels, out_channels, stride=1) for _ in range(blocks - 1)]
        return ResidualStage(BasicBlock(in_channels, out_channels, stride), *others)

    def forward_stages(self, pixel_values: torch.Tensor, maps: StageMaps) -> torch.Tensor:
        """Adds the stem's output, noted after its ReLU in both lists, and those of the three stages."""
        hidden_state = F.relu(self.bn1(self.conv1(pixel_values)), inplace=True)
        maps.add(hidden_state, hidden_state)
        for stage in (self.layer1, self.layer2, self.layer3):
            hidden_state = maps.relu(stage(hidden_state))
        return hidden_state


class ResNet50(StagedBackbone):
    """
    ResNet-50 with a 3x3 stem of stride 1 and no max pooling, for images of about 32 pixels.

    Args:
        num_channels (`int`, *optional*, defaults to 3): Channels of the input images.
    """

    num_features = 2048
    min_size = 8

    def __init__(self, num_channels: int = 3) -> None:
        super().__init__(num_channels)
        self.conv1 = _conv3x3(num_channels, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self._stage(64, 64, blocks=3, stride=1)
        self.layer2 = self._stage(256, 128, blocks=4, stride=2)
        self.layer3 = self._stage(512, 256, blocks=6, stride=2)
        self.layer4 = self._stage(1024, 512, blocks=3, stride=2)
        self.reset_parameters()

    @staticmethod
    def _stage(in_channels: int, width: int, blocks: int, stride: int) -> ResidualStage:
        others = [Bottleneck(4 * width, width, stride=1) for _ in range(blocks - 1)]
        return ResidualStage(Bottleneck(in_channels, width, stride), *others)

    def forward_stages(self, pixel_values: torch.Tensor, maps: StageMaps) -> torch.Tensor:
        """Adds the stem's output, noted after its ReLU in both lists, and those of the four stages."""
        hidden_state = F.relu(self.bn1(self.conv1(pixel_values)), inplace=True)
        maps.add(hidden_state, hidden_state)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            hidden_state = maps.relu(stage(hidden_state))
        return hidden_state
