"""What the convolutional backbones share: checked input, a walk over stages, global pooling, initialisation."""

import torch
from torch import nn
from torch.nn import functional as F

from .backbone import Backbone, BackboneOutput


def check_pixel_values(pixel_values: torch.Tensor, num_channels: int, min_size: int = 1) -> None:
    """
    Checks the shape of a batch of images.

    Args:
        pixel_values (`torch.Tensor`): What a backbone was called with.
        num_channels (`int`): Channels that its first layer reads.
        min_size (`int`, *optional*, defaults to 1): Least height and width, in pixels.

    Raises:
        ValueError: Names the expected shape and the given one.
    """
    shape = tuple(pixel_values.shape)
    if len(shape) != 4 or shape[1] != num_channels or min(shape[2:]) < min_size:
        raise ValueError(
            f"`pixel_values` must have the shape (batch_size, {num_channels}, height, width) with height and width of "
            f"at least {min_size}, got {shape}; resize the images or change `num_channels`"
        )


class StageMaps:
    """
    Collects the stage outputs of one forward pass, or nothing where they are not wanted.

    Args:
        wanted (`bool`): Whether the maps are to be returned.
    """

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.hidden_states: list[torch.Tensor] = []
        self.pre_activations: list[torch.Tensor] = []

    def add(self, hidden_state: torch.Tensor, pre_activation: torch.Tensor) -> None:
        """Notes the output of the stem or of a stage, after and before its last activation."""
        if self.wanted:
            self.hidden_states.append(hidden_state)
            self.pre_activations.append(pre_activation)

    def relu(self, pre_activation: torch.Tensor) -> torch.Tensor:
        """Ends a stage with a ReLU, which overwrites its input unless that is to be returned."""
        hidden_state = F.relu(pre_activation, inplace=not self.wanted)
        self.add(hidden_state, pre_activation)
        return hidden_state

    def output(self, embeddings: torch.Tensor, final_map: torch.Tensor | None) -> BackboneOutput:
        """The result of the forward pass."""
        if not self.wanted:
            return BackboneOutput(embeddings, final_map=final_map)
        return BackboneOutput(embeddings, tuple(self.hidden_states), tuple(self.pre_activations), final_map)


class StagedBackbone(Backbone):
    """
    Base class of the convolutional networks: stages one after the other, then the mean over all positions.

    A subclass sets `num_channels` and `min_size` (its total stride: below that, a stage has no full cell left to work
    on) and implements `forward_stages`. One that makes its embedding otherwise overrides `check_images` and `pool`, and
    unsets `pools_final_map`.

    Args:
        num_channels (`int`): Channels of the input images.
    """

    min_size: int
    pools_final_map = True

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    def forward(self, pixel_values: torch.Tensor, output_hidden_states: bool = False) -> BackboneOutput:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Normalised images.
            output_hidden_states (`bool`, *optional*, defaults to `False`): Also return the stage outputs.

        Raises:
            ValueError: Another number of channels, or images of a size that this network does not take.
        """
        self.check_images(pixel_values)
        maps = StageMaps(wanted=output_hidden_states)
        final_map = self.forward_stages(pixel_values, maps)
        return maps.output(self.pool(final_map), final_map if self.pools_final_map else None)

    def check_images(self, pixel_values: torch.Tensor) -> None:
        """Checks channels and least size."""
        check_pixel_values(pixel_values, self.num_channels, self.min_size)

    def pool(self, final_map: torch.Tensor) -> torch.Tensor:
        """Maps the last stage's `(batch_size, num_features, height, width)` to the embedding."""
        # The mean over whatever size is left, so that other image sizes than the papers' work too. The pooling kernel
        # sums in another order than `mean`, and at 32 pixels in that of the reference: training agrees bit for bit.
        return F.avg_pool2d(final_map, final_map.shape[-2:]).flatten(1)

    def forward_stages(self, pixel_values: torch.Tensor, maps: StageMaps) -> torch.Tensor:
        """Runs the stages, adds each output to `maps`, returns the map to pool, `(batch_size, num_features, h, w)`."""
        raise NotImplementedError(f"{type(self).__name__} does not implement forward_stages")

    def reset_parameters(self) -> None:
        """Initialises every convolution with `init_conv`, every batch normalisation as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                self.init_conv(module)
            elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                reset_batch_norm(module)

    def init_conv(self, conv: nn.Conv2d) -> None:
        """Draws the weight from N(0, 2 / fan_out) (He et al., arXiv:1502.01852, equation 14); the bias is zero."""
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)


def reset_batch_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """
    Makes a batch normalisation the identity: scale 1, shift 0, running mean 0 and variance 1.

    `norm.reset_parameters()` would overwrite running statistics that `from_pretrained` has just read.
    """
    for name, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
        if name in ("weight", "running_var"):
            nn.init.ones_(tensor)
        else:
            nn.init.zeros_(tensor)


class ResidualStage(nn.Sequential):
    """
    Residual blocks that return their sum before the ReLU, with a ReLU between one block and the next.

    The stage itself therefore returns its pre-activation.
    """

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Maps the activated `(batch_size, channels, height, width)` to the stage's pre-activation."""
        first, *others = self
        pre_activation = first(hidden_state)
        for block in others:
            pre_activation = block(F.relu(pre_activation, inplace=True))
        return pre_activation
