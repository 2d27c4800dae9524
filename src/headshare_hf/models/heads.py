"""Classifiers that can be shared between two models, and the projector between embeddings of different width."""

import torch
from torch import nn
from torch.nn import functional as F


class CosineHead(nn.Module):
    """
    Classifier without bias whose logit is `scale` times the cosine between the embedding and a class center.

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
        return self.scale * F.linear(F.normalize(embeddings), F.normalize(self.weight))

    def extra_repr(self) -> str:
        """What `print(model)` shows of this layer."""
        return f"in_features={self.in_features}, out_features={self.out_features}, scale={self.scale}"


def create_head(head_type: str, in_features: int, num_labels: int, scale: float) -> nn.Module:
    """The classifier that `HeadShareConfig.head_type` names; a linear one is a plain `nn.Linear` with bias."""
    if head_type == "linear":
        return nn.Linear(in_features, num_labels)
    return CosineHead(in_features, num_labels, scale)


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
