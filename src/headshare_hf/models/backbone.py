"""What every backbone of this package is: images in, one embedding per image out, and the stage outputs on request."""

from typing import NamedTuple

import torch
from torch import nn


class BackboneOutput(NamedTuple):
    """
    What a [`Backbone`] returns.

    Attributes:
        embeddings (`torch.Tensor` of shape `(batch_size, num_features)`):
            The pooled output, the input of a classifier.
        hidden_states (`tuple[torch.Tensor, ...]`, *optional*):
            Feature maps `(batch_size, channels, height, width)` of the stem and of every stage, after the stage's last
            activation. `None` unless asked for.
        pre_activations (`tuple[torch.Tensor, ...]`, *optional*):
            The same maps before that last activation; an entry equals the one in `hidden_states` where the stage ends
            without an activation. `None` unless asked for.
        final_map (`torch.Tensor` of shape `(batch_size, num_features, height, width)`, *optional*):
            The map whose mean over all positions the embedding is, of networks that pool in this way.
    """

    embeddings: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None = None
    pre_activations: tuple[torch.Tensor, ...] | None = None
    final_map: torch.Tensor | None = None


class Backbone(nn.Module):
    """
    Base class of the feature extractors.

    A subclass sets `num_features`, the width of its embedding, and implements `forward` and `reset_parameters`. One that
    returns a `final_map` sets `pools_final_map`.
    """

    num_features: int
    pools_final_map = False

    def forward(self, pixel_values: torch.Tensor, output_hidden_states: bool = False) -> BackboneOutput:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Normalised images.
            output_hidden_states (`bool`, *optional*, defaults to `False`): Also return the stage outputs.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement forward")

    def reset_parameters(self) -> None:
        """
        Initialises every parameter as the network's paper does.

        Only functions of `torch.nn.init` may be used: while `from_pretrained` runs, transformers turns exactly these
        into no-ops for tensors that were read from the checkpoint.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement reset_parameters")

    def freeze_constants(self) -> None:
        """Freezes the parameters that the network's authors never train; most networks have none."""
