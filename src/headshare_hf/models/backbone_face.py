"""What the face networks share: a fixed image size, an embedding in full precision, initialisation."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers.utils.generic import maybe_autocast

from .backbone_staged import StagedBackbone, StageMaps, check_pixel_values


# Every network of this kind halves the resolution four times, rounding up.
_TOTAL_STRIDE = 16


def height_and_width(image_size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """
    Both sides of an image, in pixels.

    Args:
        image_size (`int` or `list[int]`): One side of a square, or height and width.

    Raises:
        ValueError: Something else than one or two positive numbers.
    """
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"`image_size` is {image_size}; it must be at least 1, or [height, width] of at least 1 each")
    return sides


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution without bias and its batch normalisation; a 3x3 one keeps the size, others are not padded."""
    padding = 1 if kernel_size == 3 else 0
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]


def activated_stage(layers: Iterable[Any], hidden_state: torch.Tensor, maps: StageMaps) -> torch.Tensor:
    """Ends a stage with convolution, batch normalisation and PReLU, the three `layers`; adds the maps around PReLU."""
    conv, norm, activation = layers
    pre_activation = norm(conv(hidden_state))
    hidden_state = activation(pre_activation)
    maps.add(hidden_state, pre_activation)
    return hidden_state


class FaceBackbone(StagedBackbone):
    """
    Base class of the face networks, whose last layers have one weight for every position of the final map.

    Such a network is built for one image size and accepts no other. A subclass implements `forward_stages` and
    `embed`.

    Args:
        num_channels (`int`): Channels of the input images.
        image_size (`int` or `list[int]`): Height and width of the images in pixels, or one number for both.
        num_features (`int`): Width of the embedding.

    Raises:
        ValueError: `image_size` or `num_features` is not positive.
    """

    pools_final_map = False

    def __init__(self, num_channels: int, image_size: int | list[int] | tuple[int, int], num_features: int) -> None:
        super().__init__(num_channels)
        if num_features < 1:
            raise ValueError(f"`num_features` is {num_features}; it must be at least 1")
        self.num_features = num_features
        self.image_size = height_and_width(image_size)
        height, width = (math.ceil(side / _TOTAL_STRIDE) for side in self.image_size)
        self.final_size = (height, width)

    def check_images(self, pixel_values: torch.Tensor) -> None:
        """Checks channels and size."""
        check_pixel_values(pixel_values, self.num_channels)
        height, width = pixel_values.shape[2:]
        if (height, width) != self.image_size:
            raise ValueError(
                f"the images are {height}x{width} pixels (height x width), but this {type(self).__name__} was built "
                f"for {self.image_size[0]}x{self.image_size[1]}; resize the images, or build it with `image_size` "
                f"[{height}, {width}]"
            )

    def pool(self, final_map: torch.Tensor) -> torch.Tensor:
        """
        Makes the embedding outside of autocast, in the precision of the weights, as insightface does.

        Cosines between embeddings are compared to the third digit, and the normalisation before them divides by small
        deviations.
        """
        with maybe_autocast(final_map.device.type, enabled=False):
            return self.embed(final_map.to(next(self.parameters()).dtype))

    def embed(self, final_map: torch.Tensor) -> torch.Tensor:
        """Maps the last stage's `(batch_size, channels, height, width)` to `(batch_size, num_features)`."""
        raise NotImplementedError(f"{type(self).__name__} does not implement embed")

    def reset_parameters(self) -> None:
        """Initialises convolutions and normalisations as `StagedBackbone`, PReLU with 0.25, the rest as `init_linear`."""
        super().reset_parameters()
        for module in self.modules():
            if isinstance(module, nn.PReLU):
                nn.init.constant_(module.weight, 0.25)
            elif isinstance(module, nn.Linear):
                self.init_linear(module)

    def init_linear(self, linear: nn.Linear) -> None:
        """Draws the weight from N(0, 2 / num_features); there is no bias."""
        nn.init.kaiming_normal_(linear.weight, mode="fan_out", nonlinearity="relu")
