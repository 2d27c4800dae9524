"""
MobileFaceNets: Chen et al., "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile
Devices", arXiv:1804.07573.

Layout, tensor names and initialisation of [`MobileFaceNet`] are those of the repository deepinsight/insightface
(`recognition/arcface_torch/backbones/mobilefacenet.py`), those of [`MobileFaceNetPaper`] of the repository
Xiaoccer/MobileFaceNet_Pytorch (`core/model.py`), so that their checkpoints fit.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from .backbone_face import FaceBackbone, activated_stage, conv_norm
from .backbone_staged import StageMaps


# Channels before the global depthwise convolution, in both layouts.
_FINAL_CHANNELS = 512
# The paper's table 1: expansion, channels, blocks, stride of the first block; and where a stage begins.
_PAPER_GROUPS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
_PAPER_STAGES = (slice(0, 5), slice(5, 12), slice(12, 15))


class Layers(nn.Module):
    """
    Layers one after the other, under the name `layers`.

    Args:
        layers (`nn.Module`): What to run.
        adds_input (`bool`, *optional*, defaults to `False`): Whether the input is added to the result.
    """

    def __init__(self, *layers: nn.Module, adds_input: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.adds_input = adds_input

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Maps `(batch_size, in_channels, height, width)` to what the last layer returns."""
        output = self.layers(hidden_state)
        return output.add_(hidden_state) if self.adds_input else output


def _activated(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> Layers:
    layers = conv_norm(in_channels, out_channels, kernel_size, stride, groups)
    return Layers(*layers, nn.PReLU(out_channels))


def _depthwise(in_channels: int, inner: int, out_channels: int, stride: int) -> Layers:
    """1x1 to `inner` channels, 3x3 on each of them, 1x1 to `out_channels`; the input is added at stride 1."""
    return Layers(
        _activated(in_channels, inner, 1),
        _activated(inner, inner, 3, stride, groups=inner),
        Layers(*conv_norm(inner, out_channels, 1)),
        adds_input=stride == 1,
    )


def _residual(channels: int, inner: int, count: int) -> Layers:
    return Layers(*(_depthwise(channels, inner, channels, 1) for _ in range(count)))


class MobileFaceNet(FaceBackbone):
    """
    MobileFaceNet of insightface: a stem, three stages that halve the resolution, a 1x1 convolution to 512 channels, one
    depthwise convolution over all positions and a linear layer.

    The stages end without activation; `pre_activations` differ from `hidden_states` for the stem and the 1x1
    convolution. Published weights expect aligned RGB faces of 112x112 pixels, normalised as `(x / 255 - 0.5) / 0.5`.

    Args:
        scale (`int`): Factor on the paper's widths; insightface publishes weights for 2 (`mbf`).
        num_channels (`int`, *optional*, defaults to 3): Channels of the input images.
        image_size (`int` or `list[int]`, *optional*, defaults to 112):
            Height and width of the images in pixels, or one number for both.
        num_features (`int`, *optional*, defaults to 512): Width of the embedding.
    """

    def __init__(
        self,
        scale: int,
        num_channels: int = 3,
        image_size: int | list[int] | tuple[int, int] = 112,
        num_features: int = 512,
    ) -> None:
        super().__init__(num_channels, image_size, num_features)
        narrow, wide = 64 * scale, 128 * scale
        self.layers = nn.ModuleList(
            [
                _activated(num_channels, narrow, 3, stride=2),
                # Depthwise only at scale 1: insightface left the number of groups at 64.
                _activated(narrow, narrow, 3, groups=64),
                _depthwise(narrow, 128, narrow, stride=2),
                _residual(narrow, 128, 4),
                _depthwise(narrow, 256, wide, stride=2),
                _residual(wide, 256, 6),
                _depthwise(wide, 512, wide, stride=2),
                _residual(wide, 256, 2),
            ]
        )
        self.conv_sep = _activated(wide, _FINAL_CHANNELS, 1)
        self.features = Layers(
            Layers(*conv_norm(_FINAL_CHANNELS, _FINAL_CHANNELS, self.final_size, groups=_FINAL_CHANNELS)),
            nn.Flatten(),
            nn.Linear(_FINAL_CHANNELS, num_features, bias=False),
            nn.BatchNorm1d(num_features),
        )
        self.reset_parameters()

    def forward_stages(self, pixel_values: torch.Tensor, maps: StageMaps) -> torch.Tensor:
        """Adds the outputs of the stem, of the three stages and of the 1x1 convolution."""
        first, second, *stages = cast(Iterable[Layers], self.layers)
        hidden_state = activated_stage(second.layers, first(pixel_values), maps)
        for halving, others in zip(stages[::2], stages[1::2], strict=True):
            hidden_state = others(halving(hidden_state))
            maps.add(hidden_state, hidden_state)
        return activated_stage(self.conv_sep.layers, hidden_state, maps)

    def embed(self, final_map: torch.Tensor) -> torch.Tensor:
        """The depthwise convolution over all positions, the linear layer and its normalisation."""
        return self.features(final_map)


def _named(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int = 1,
    groups: int = 1,
    activation: bool = True,
) -> nn.Sequential:
    conv, norm = conv_norm(in_channels, out_channels, kernel_size, stride, groups)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv, bn=norm)
    if activation:
        layers["prelu"] = nn.PReLU(out_channels)
    return nn.Sequential(layers)


class PaperBottleneck(nn.Module):
    """
    1x1 convolution that widens, 3x3 on each channel, 1x1 that narrows.

    Args:
        in_channels (`int`): Channels of the input.
        out_channels (`int`): Channels of the output.
        stride (`int`): Stride of the 3x3 convolution.
        expansion (`int`): Factor of the inner width on `in_channels`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * in_channels
        self.adds_input = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            *conv_norm(in_channels, inner, 1),
            nn.PReLU(inner),
            *conv_norm(inner, inner, 3, stride, groups=inner),
            nn.PReLU(inner),
            *conv_norm(inner, out_channels, 1),
        )

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Maps `(batch_size, in_channels, height, width)` to the block's output, which has no activation."""
        residual = self.conv(hidden_state)
        return residual.add_(hidden_state) if self.adds_input else residual


class MobileFaceNetPaper(FaceBackbone):
    """
    MobileFaceNet as in table 1 of the paper, with the tensor names of the plain PyTorch re-implementations.

    Their weights are for aligned RGB faces of 112x96 pixels (height x width), normalised as `(x - 127.5) / 128`: set
    `image_size` to `[112, 96]`. The stages end without activation; `pre_activations` differ from `hidden_states` for
    the stem and the last 1x1 convolution.

    Args:
        num_channels (`int`, *optional*, defaults to 3): Channels of the input images.
        image_size (`int` or `list[int]`, *optional*, defaults to `(112, 96)`):
            Height and width of the images in pixels, or one number for both.
        num_features (`int`, *optional*, defaults to 128): Width of the embedding.
    """

    def __init__(
        self,
        num_channels: int = 3,
        image_size: int | list[int] | tuple[int, int] = (112, 96),
        num_features: int = 128,
    ) -> None:
        super().__init__(num_channels, image_size, num_features)
        self.conv1 = _named(num_channels, 64, 3, stride=2)
        self.dw_conv1 = _named(64, 64, 3, groups=64)
        self.blocks = nn.Sequential()
        in_channels = 64
        for expansion, out_channels, count, stride in _PAPER_GROUPS:
            for index in range(count):
                self.blocks.append(PaperBottleneck(in_channels, out_channels, 1 if index else stride, expansion))
                in_channels = out_channels
        self.conv2 = _named(in_channels, _FINAL_CHANNELS, 1)
        self.linear7 = _named(
            _FINAL_CHANNELS, _FINAL_CHANNELS, self.final_size, groups=_FINAL_CHANNELS, activation=False
        )
        self.linear1 = _named(_FINAL_CHANNELS, num_features, 1, activation=False)
        self.reset_parameters()

    def forward_stages(self, pixel_values: torch.Tensor, maps: StageMaps) -> torch.Tensor:
        """Adds the outputs of the stem, of the three stages and of the last 1x1 convolution."""
        hidden_state = activated_stage(self.dw_conv1, self.conv1(pixel_values), maps)
        for stage in _PAPER_STAGES:
            hidden_state = self.blocks[stage](hidden_state)
            maps.add(hidden_state, hidden_state)
        return activated_stage(self.conv2, hidden_state, maps)

    def embed(self, final_map: torch.Tensor) -> torch.Tensor:
        """The depthwise convolution over all positions, and the 1x1 convolution as linear layer."""
        return self.linear1(self.linear7(final_map)).flatten(1)
