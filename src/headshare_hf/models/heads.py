"""Classifiers that can be shared between two models, and the projector between embeddings of different width."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers.utils.generic import maybe_autocast

from .margins import AdaptiveMargin, CombinedMargin


# Label of an image that is left out of the cross-entropy.
IGNORED_LABEL = -1

HEAD_TYPES = ("linear", "cosine", "arcface", "cosface", "combined", "adaface")
DEFAULT_MARGINS: dict[str, float] = {"arcface": 0.5, "cosface": 0.4, "adaface": 0.4}
# As in `torch.nn.functional.normalize`: the logits of a center of length zero are zero.
_SMALLEST_LENGTH = 1e-12


class CosineHead(nn.Module):
    """
    Classifier without bias whose logit is `scale` times the cosine between the embedding and a class center.

    It computes in float32 whatever the autocast: in bfloat16 the cosines 0.700 and 0.701 are the same number.

    Args:
        in_features (`int`): Width D of the embedding.
        out_features (`int`): Number of classes C.
        scale (`float`): The factor s, unitless.
    """

    def __init__(self, in_features: int, out_features: int, scale: float) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the class centers from a normal distribution; only their direction matters."""
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Maps `(batch_size, in_features)` to logits `(batch_size, out_features)` in [-scale, scale]."""
        with maybe_autocast(embeddings.device.type, enabled=False):
            embeddings, centers = _at_least_float32(embeddings), _at_least_float32(self.weight)
            # Products divided by the lengths of the centers are those with centers of length 1, without a second matrix.
            lengths = torch.linalg.vector_norm(centers, dim=1).clamp(min=_SMALLEST_LENGTH)
            return F.linear(self.scale * F.normalize(embeddings), centers) * lengths.reciprocal()

    def margin_logits(self, logits: torch.Tensor, labels: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """The logits that the cross-entropy of the training is taken of; here, those that come in."""
        return logits

    def extra_repr(self) -> str:
        """What `print(model)` shows of this layer."""
        return f"in_features={self.in_features}, out_features={self.out_features}, scale={self.scale}"


class MarginHead(CosineHead):
    """
    [`CosineHead`] whose training makes the right class harder by a margin.

    `forward` has no margin: that is what predicts, what is distilled, and what is shared, so that class centers pass
    between heads of different margins. `margin_logits` adds the margin, where there are labels.

    Args:
        in_features (`int`): Width D of the embedding.
        out_features (`int`): Number of classes C.
        scale (`float`): The factor s, unitless.
        margin (`nn.Module`): [`CombinedMargin`] or [`AdaptiveMargin`].
    """

    def __init__(self, in_features: int, out_features: int, scale: float, margin: nn.Module) -> None:
        super().__init__(in_features, out_features, scale)
        self.margin = margin

    def margin_logits(self, logits: torch.Tensor, labels: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """
        `logits` with the margin at the class of each label.

        Args:
            logits (`torch.Tensor` of shape `(batch_size, out_features)`): What `forward` returned.
            labels (`torch.Tensor` of `int64` and shape `(batch_size,)`):
                Class numbers; -1 leaves a row as it is.
            embeddings (`torch.Tensor` of shape `(batch_size, in_features)`): What `forward` was given.

        Returns:
            `torch.Tensor` of shape `(batch_size, out_features)`, at least float32.
        """
        with maybe_autocast(logits.device.type, enabled=False):
            logits = _at_least_float32(logits)
            counted = labels != IGNORED_LABEL
            columns = labels.clamp(min=0).unsqueeze(1)
            cosines = logits.gather(1, columns).squeeze(1) / self.scale
            norms = _at_least_float32(embeddings.detach()).norm(dim=1)
            harder = torch.where(counted, self.margin(cosines, norms, counted), cosines)
            return logits.scatter(1, columns, self.scale * harder.unsqueeze(1))


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def create_head(
    head_type: str,
    in_features: int,
    num_labels: int,
    scale: float,
    margin: float | Sequence[float] | None = None,
    gradient: str = "true",
) -> nn.Module:
    """
    The classifier that `HeadShareConfig.head_type` names; a linear one is a plain `nn.Linear` with bias.

    Args:
        head_type (`str`): One of `HEAD_TYPES`.
        in_features (`int`): Width of the embedding.
        num_labels (`int`): Number of classes.
        scale (`float`): Scale of all but the linear head.
        margin (`float` or `Sequence[float]`, *optional*): Margin of the face heads; three numbers for `"combined"`.
        gradient (`str`, *optional*, defaults to `"true"`): See [`CombinedMargin`].
    """
    if head_type == "linear":
        return nn.Linear(in_features, num_labels)
    if head_type == "cosine":
        return CosineHead(in_features, num_labels, scale)
    return MarginHead(in_features, num_labels, scale, _create_margin(head_type, margin, gradient))


def _create_margin(head_type: str, margin: float | Sequence[float] | None, gradient: str) -> nn.Module:
    if isinstance(margin, Sequence):
        factor, angle, difference = margin
        return CombinedMargin(factor, angle, difference, gradient)
    amount = DEFAULT_MARGINS[head_type] if margin is None else margin
    if head_type == "adaface":
        return AdaptiveMargin(amount, gradient)
    return (
        CombinedMargin(1.0, amount, 0.0, gradient)
        if head_type == "arcface"
        else CombinedMargin(1.0, 0.0, amount, gradient)
    )


def create_projector(kind: str, in_features: int, out_features: int) -> nn.Module:
    """
    The layer that takes embeddings of width `in_features` to `out_features`, so that a head of that width fits.

    Args:
        kind (`str`): `"linear"` or `"linear_bn_relu"`. The second suits heads trained on embeddings that come out of a
            ReLU, as those of the ResNets do.
        in_features (`int`): Width of the incoming embedding.
        out_features (`int`): Width that the head expects.
    """
    if kind == "linear":
        return nn.Linear(in_features, out_features)
    if kind == "linear_bn_relu":
        # The bias would be taken out again by the batch normalisation.
        return nn.Sequential(nn.Linear(in_features, out_features, bias=False), nn.BatchNorm1d(out_features), nn.ReLU())
    raise ValueError(f"unknown projector {kind!r}; allowed: linear, linear_bn_relu")
