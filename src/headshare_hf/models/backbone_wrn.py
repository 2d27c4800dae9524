"""
Wide ResNets for small images: Zagoruyko and Komodakis, "Wide Residual Networks", arXiv:1605.07146.

Layout and tensor names are those of the repository Alibaba-MIIL/HeadSharingKD (`models/wrn.py`).
"""

import torch
from torch import nn
from torch.nn import functional as F

from .backbone_staged import StagedBackbone, StageMaps


class WideBlock(nn.Module):
    """
    Normalisation and ReLU before each of two 3x3 convolutions, with dropout in between.

    Args:
        in_channels (`int`): Channels of the input.
        out_channels (`int`): Channels of the output.
        stride (`int`): Stride of the first convolution.
        drop_rate (`float`): Probability of dropping a value before the second convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, drop_rate: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(drop_rate)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.convShortcut = None
        if in_channels != out_channels:
            self.convShortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, hidden_state: torch.Tensor, activated: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            hidden_state (`torch.Tensor` of shape `(batch_size, in_channels, height, width)`):
                Output of the previous block.
            activated (`torch.Tensor` of the same shape, *optional*):
                The same after this block's `bn1` and a ReLU, where the caller has computed it already.
        """
        if activated is None:
            activated = F.relu(self.bn1(hidden_state), inplace=True)
        residual = F.relu(self.bn2(self.conv1(activated)), inplace=True)
        residual = self.conv2(self.dropout(residual))
        # Where the width changes, the shortcut starts after normalisation and ReLU.
        return residual.add_(hidden_state if self.convShortcut is None else self.convShortcut(activated))


class WideStage(nn.Module):
    """
    Blocks of one width; the first one changes width and resolution.

    Args:
        in_channels (`int`): Channels of the input.
        out_channels (`int`): Channels of the output.
        blocks (`int`): Number of blocks.
        stride (`int`): Stride of the first block.
        drop_rate (`float`): See [`WideBlock`].
    """

    def __init__(self, in_channels: int, out_channels: int, blocks: int, stride: int, drop_rate: float) -> None:
        super().__init__()
        others = [WideBlock(out_channels, out_channels, 1, drop_rate) for _ in range(blocks - 1)]
        self.layer = nn.Sequential(WideBlock(in_channels, out_channels, stride, drop_rate), *others)

    @property
    def norm(self) -> nn.Module:
        """The normalisation that the stage starts with, left to the caller, who may want its output."""
        return self.layer[0].get_submodule("bn1")

    def forward(self, hidden_state: torch.Tensor, activated: torch.Tensor) -> torch.Tensor:
        """As [`WideBlock.forward`], with `activated` made by `norm` and a ReLU."""
        first, *others = self.layer
        hidden_state = first(hidden_state, activated)
        for block in others:
            hidden_state = block(hidden_state)
        return hidden_state


class WideResNet(StagedBackbone):
    """
    WRN with three stages at full, half and quarter resolution.

    The stages end in a sum without activation: `hidden_states` holds these sums, `pre_activations` the next
    normalisation of each, which the following stage computes anyway. The stem has neither: both lists hold its output.

    Args:
        depth (`int`): Number of layers: 6n + 4 with n blocks a stage.
        widen_factor (`int`): The paper's k: the stages have 16k, 32k and 64k channels.
        num_channels (`int`, *optional*, defaults to 3): Channels of the input images.
        drop_rate (`float`, *optional*, defaults to 0.0): Dropout probability inside the blocks.
    """

    min_size = 4

    def __init__(self, depth: int, widen_factor: int, num_channels: int = 3, drop_rate: float = 0.0) -> None:
        super().__init__(num_channels)
        width = 16 * widen_factor
        blocks = (depth - 4) // 6
        self.num_features = 4 * width
        self.conv1 = nn.Conv2d(num_channels, 16, kernel_size=3, padding=1, bias=False)
        self.block1 = WideStage(16, width, blocks, 1, drop_rate)
        self.block2 = WideStage(width, 2 * width, blocks, 2, drop_rate)
        self.block3 = WideStage(2 * width, 4 * width, blocks, 2, drop_rate)
        self.bn1 = nn.BatchNorm2d(4 * width)
        self.reset_parameters()

    def forward_stages(self, pixel_values: torch.Tensor, maps: StageMaps) -> torch.Tensor:
        """Adds the stem's output and those of the three stages."""
        hidden_state = self.conv1(pixel_values)
        maps.add(hidden_state, hidden_state)
        normalized = self.block1.norm(hidden_state)
        stages = (self.block1, self.block2, self.block3)
        for stage, next_norm in zip(stages, (self.block2.norm, self.block3.norm, self.bn1), strict=True):
            hidden_state = stage(hidden_state, F.relu(normalized, inplace=not maps.wanted))
            normalized = next_norm(hidden_state)
            maps.add(hidden_state, normalized)
        return F.relu(normalized, inplace=not maps.wanted)
