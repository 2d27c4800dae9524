"""
IResNets for faces: Deng et al., "ArcFace", arXiv:1801.07698, section 3.1; blocks of Han et al., arXiv:1610.02915.

Layout, tensor names and initialisation are those of the repository deepinsight/insightface
(`recognition/arcface_torch/backbones/iresnet.py`), so that its checkpoints fit.
"""

import torch
from torch import nn

from .backbone_face import FaceBackbone, activated_stage
from .backbone_staged import StageMaps


_WIDTHS = (64, 128, 256, 512)


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)


class IResNetBlock(nn.Module):
    """
    Normalisation, 3x3 convolution, normalisation, PReLU, 3x3 convolution, normalisation; then the shortcut is added.

    Args:
        in_channels (`int`): Channels of the input.
        out_channels (`int`): Channels of the output.
        stride (`int`): Stride of the second convolution; 2 also puts a 1x1 convolution into the shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = _conv(in_channels, out_channels, 3)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.prelu = nn.PReLU(out_channels)
        self.conv2 = _conv(out_channels, out_channels, 3, stride)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1:
            conv = _conv(in_channels, out_channels, 1, stride)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(out_channels))

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Maps `(batch_size, in_channels, height, width)` to the block's output, which has no activation."""
        residual = self.prelu(self.bn2(self.conv1(self.bn1(hidden_state))))
        residual = self.bn3(self.conv2(residual))
        return residual.add_(hidden_state if self.downsample is None else self.downsample(hidden_state))


class IResNet(FaceBackbone):
    """
    Stem at full resolution, four stages that each halve it, and a linear layer over all positions.

    The stages end without activation, so that only the stem's `pre_activations` differ from `hidden_states`. The last
    normalisation has a fixed scale of 1: `features.weight` is frozen. Published weights expect aligned RGB faces of
    112x112 pixels, normalised as `(x / 255 - 0.5) / 0.5`.

    Args:
        blocks (`tuple[int, ...]`): Blocks of each stage.
        num_channels (`int`, *optional*, defaults to 3): Channels of the input images.
        image_size (`int` or `list[int]`, *optional*, defaults to 112):
            Height and width of the images in pixels, or one number for both.
        num_features (`int`, *optional*, defaults to 512): Width of the embedding.
        dropout (`float`, *optional*, defaults to 0.0): Dropout probability before the linear layer.
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        num_channels: int = 3,
        image_size: int | list[int] | tuple[int, int] = 112,
        num_features: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(num_channels, image_size, num_features)
        self.conv1 = _conv(num_channels, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        in_channels = 64
        for index, (width, count) in enumerate(zip(_WIDTHS, blocks, strict=True), start=1):
            others = [IResNetBlock(width, width, 1) for _ in range(count - 1)]
            self.add_module(f"layer{index}", nn.Sequential(IResNetBlock(in_channels, width, 2), *others))
            in_channels = width
        self.bn2 = nn.BatchNorm2d(in_channels)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_channels * self.final_size[0] * self.final_size[1], num_features)
        self.features = nn.BatchNorm1d(num_features)
        self.freeze_constants()
        self.reset_parameters()

    def forward_stages(self, pixel_values: torch.Tensor, maps: StageMaps) -> torch.Tensor:
        """Adds the stem's output and those of the four stages."""
        hidden_state = activated_stage((self.conv1, self.bn1, self.prelu), pixel_values, maps)
        for index in range(1, len(_WIDTHS) + 1):
            hidden_state = self.get_submodule(f"layer{index}")(hidden_state)
            maps.add(hidden_state, hidden_state)
        return self.dropout(self.bn2(hidden_state))

    def embed(self, final_map: torch.Tensor) -> torch.Tensor:
        """The linear layer over all positions, and its normalisation."""
        return self.features(self.fc(final_map.flatten(1)))

    def freeze_constants(self) -> None:
        """Freezes the scale of the embedding's normalisation, as insightface does."""
        self.features.weight.requires_grad_(False)

    def init_conv(self, conv: nn.Conv2d) -> None:
        """Draws the weight from N(0, 0.01)."""
        nn.init.normal_(conv.weight, std=0.1)

    def init_linear(self, linear: nn.Linear) -> None:
        """Draws weight and bias uniformly from ±1 / sqrt(inputs), torch's own choice."""
        bound = linear.in_features**-0.5
        nn.init.uniform_(linear.weight, -bound, bound)
        nn.init.uniform_(linear.bias, -bound, bound)
