"""What a forward pass shows of a network, and the shapes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch


Shape = tuple[int, ...]
# Channels, height, width.
MapShape = tuple[int, int, int]


@dataclass(frozen=True)
class FeatureShapes:
    """
    Shapes of [`Features`], each without the batch; `None` where the network has nothing of the kind.

    Attributes:
        hidden_states (`tuple[tuple[int, ...], ...]`, *optional*): `(channels, height, width)` of stem and stages.
        pre_activations (`tuple[tuple[int, ...], ...]`, *optional*): Likewise.
        embeddings (`int`, *optional*): Width of the embedding.
        logits (`int`, *optional*): Number of classes.
        final_map (`tuple[int, ...]`, *optional*): Channels, height and width of the map that is pooled.
    """

    hidden_states: tuple[Shape, ...] | None = None
    pre_activations: tuple[Shape, ...] | None = None
    embeddings: int | None = None
    logits: int | None = None
    final_map: Shape | None = None

    @property
    def maps(self) -> tuple[MapShape, ...]:
        """`hidden_states` of a network that has feature maps, which a [`CompanionLoss`] checks when it is built."""
        return cast(tuple[MapShape, ...], self.hidden_states)

    @property
    def embedding_size(self) -> int:
        """`embeddings` of a network that has some, likewise."""
        return cast(int, self.embeddings)

    @property
    def num_labels(self) -> int:
        """`logits` of a network that has some, likewise."""
        return cast(int, self.logits)

    @property
    def stages(self) -> tuple[MapShape, ...]:
        """[`maps`] without the stem."""
        return self.maps[1:]


@dataclass(frozen=True)
class Features:
    """
    What one network, student or teacher, made of a batch. A loss reads what it says it needs; the rest may be `None`.

    Attributes:
        hidden_states (`Sequence[torch.Tensor]`, *optional*):
            Feature maps `(batch_size, channels, height, width)` of the stem and of every stage, after the stage's last
            activation.
        pre_activations (`Sequence[torch.Tensor]`, *optional*): The same maps before that activation.
        embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`, *optional*): What the classifier reads.
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`, *optional*): What it gives.
        head (`Callable`, *optional*):
            Of a teacher, its frozen classifier: maps anybody's embeddings to logits and lets gradients pass through.
        final_map (`torch.Tensor` of shape `(batch_size, channels, height, width)`, *optional*):
            The map whose mean over all positions the embedding is. Often the last of `hidden_states`, but that of a WRN
            goes through one more normalisation.
    """

    hidden_states: Sequence[torch.Tensor] | None = None
    pre_activations: Sequence[torch.Tensor] | None = None
    embeddings: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    head: Callable[[torch.Tensor], torch.Tensor] | None = None
    final_map: torch.Tensor | None = None

    def shapes(self) -> FeatureShapes:
        """The shapes, from which a [`CompanionLoss`] is built."""
        # A backbone that cannot tell its pre-activations returns one tuple for both.
        told = self.pre_activations is not self.hidden_states
        return FeatureShapes(
            hidden_states=_map_shapes(self.hidden_states),
            pre_activations=_map_shapes(self.pre_activations) if told else None,
            embeddings=None if self.embeddings is None else self.embeddings.shape[1],
            logits=None if self.logits is None else self.logits.shape[1],
            final_map=None if self.final_map is None else tuple(self.final_map.shape[1:]),
        )


class NeededFeatures:
    """
    The fields of [`Features`] that a loss says it needs, ready to compute with; there are no others.

    Args:
        fields (`Any`): By the names of [`Features`].
    """

    hidden_states: tuple[torch.Tensor, ...]
    pre_activations: tuple[torch.Tensor, ...]
    embeddings: torch.Tensor
    logits: torch.Tensor
    head: Callable[[torch.Tensor], torch.Tensor]
    final_map: torch.Tensor

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    @property
    def stages(self) -> tuple[torch.Tensor, ...]:
        """`hidden_states` without the stem."""
        return self.hidden_states[1:]

    @property
    def device_type(self) -> str:
        """Where the tensors are."""
        first = next(iter(self.__dict__.values()))
        return cast(torch.Tensor, first[0] if isinstance(first, tuple) else first).device.type


def _map_shapes(maps: Sequence[torch.Tensor] | None) -> tuple[Shape, ...] | None:
    return None if maps is None else tuple(tuple(each.shape[1:]) for each in maps)
