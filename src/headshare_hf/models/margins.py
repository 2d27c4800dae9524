"""
Margins of face recognition: what is taken off the cosine of the right class while a network trains.

Every margin maps the cosine of an embedding with the center of its own class to a smaller number. It is computed in
float32 or better, and its derivative is written out, because the one that autograd finds is infinite where an
embedding lies on its center: d cos(θ + m) / d cos θ = sin(θ + m) / sin θ.
"""

import math

import torch
from torch import nn


GRADIENTS = ("true", "straight_through")

# Below this sine (about 0.06 degrees) the angle is lost in the rounding of a float32 cosine.
_SMALLEST_SINE = 1e-3


class CombinedMargin(nn.Module):
    """
    cos(m1 · θ + m2) − m3, the form that holds the others as special cases (Deng et al., arXiv 1801.07698, equation 4).

    m1 is SphereFace's factor, m2 the angle of ArcFace in radians, m3 the difference of CosFace (arXiv 1801.09414).

    insightface's arcface_torch changes the logit of the right class outside of autograd, so that the derivative with
    respect to the cosine is 1 whatever the angle: a straight-through gradient. `gradient="straight_through"` gives
    that form; the values are the same. With ArcFace's margin the true derivative is larger for small angles (at
    θ = 0.3 and m = 0.5 it is 2.4) and smaller for large ones. Where m1 · θ + m2 exceeds π, for ArcFace's 0.5 at cosines
    below -0.88, it is negative, because cos(θ + m) rises again there.

    Args:
        angle_factor (`float`): m1, unitless.
        angle_margin (`float`): m2, in radians.
        cosine_margin (`float`): m3, unitless.
        gradient (`str`): `"true"` or `"straight_through"`.
    """

    def __init__(self, angle_factor: float, angle_margin: float, cosine_margin: float, gradient: str) -> None:
        super().__init__()
        self.angle_factor = angle_factor
        self.angle_margin = angle_margin
        self.cosine_margin = cosine_margin
        self.gradient = gradient

    def forward(self, cosines: torch.Tensor, norms: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        """
        Args:
            cosines (`torch.Tensor` of shape `(batch_size,)`): With the center of the right class, at least float32.
            norms (`torch.Tensor` of shape `(batch_size,)`): Length of each embedding; not used here.
            counted (`torch.Tensor` of `bool` and shape `(batch_size,)`): Which rows have a label; not used here.

        Returns:
            `torch.Tensor` of shape `(batch_size,)`.
        """
        if self.angle_factor == 1 and self.angle_margin == 0:
            return cosines - self.cosine_margin
        angles = _angles(cosines)
        shifted = self.angle_factor * angles + self.angle_margin
        slope = self.angle_factor * shifted.sin() / _sines(angles)
        return _with_slope(cosines, shifted.cos() - self.cosine_margin, slope, self.gradient)

    def extra_repr(self) -> str:
        """What `print(model)` shows of this layer."""
        return f"m1={self.angle_factor}, m2={self.angle_margin}, m3={self.cosine_margin}, gradient={self.gradient}"


class AdaptiveMargin(nn.Module):
    """
    AdaFace (Kim, Jain, Liu, arXiv 2204.00964, equations 13 to 16): the margin depends on the length of the embedding,
    which stands for the quality of the image. With ẑ = clip(h · (‖z‖ − μ) / σ, −1, 1), the result is
    cos(θ − m · ẑ) − (m + m · ẑ). μ and σ are running means over the batches, kept in the checkpoint.

    With several processes each one measures its own part of the batch, and the first one's means are what the others
    continue from.

    Args:
        margin (`float`): m.
        gradient (`str`): As in [`CombinedMargin`].
    """

    concentration = 0.333
    momentum = 0.01
    norm_mean: torch.Tensor
    norm_std: torch.Tensor

    def __init__(self, margin: float, gradient: str) -> None:
        super().__init__()
        self.margin = margin
        self.gradient = gradient
        # Where the authors' code starts from.
        self.register_buffer("norm_mean", torch.tensor(20.0))
        self.register_buffer("norm_std", torch.tensor(100.0))

    def forward(self, cosines: torch.Tensor, norms: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        """
        Args:
            cosines (`torch.Tensor` of shape `(batch_size,)`): With the center of the right class, at least float32.
            norms (`torch.Tensor` of shape `(batch_size,)`): Length of each embedding.
            counted (`torch.Tensor` of `bool` and shape `(batch_size,)`): Which rows have a label.

        Returns:
            `torch.Tensor` of shape `(batch_size,)`.
        """
        lengths = norms.detach().clamp(1e-3, 100).to(cosines)
        if self.training:
            self._measure(lengths, counted)
        quality = (lengths - self.norm_mean) / (self.norm_std + 1e-3) * self.concentration
        quality = quality.clamp(-1, 1)
        angles = _angles(cosines)
        shifted = angles - self.margin * quality
        inside = (shifted > 0) & (shifted < math.pi)
        slope = torch.where(inside, shifted.sin() / _sines(angles), 0.0)
        value = shifted.clamp(0, math.pi).cos() - self.margin * (1 + quality)
        return _with_slope(cosines, value, slope, self.gradient)

    @torch.no_grad()
    def _measure(self, lengths: torch.Tensor, counted: torch.Tensor) -> None:
        # Sums with weights 0 and 1, because choosing rows would wait for the device.
        weights = counted.to(lengths)
        count = weights.sum()
        mean = (weights * lengths).sum() / count.clamp(min=1)
        std = ((weights * (lengths - mean).square()).sum() / (count - 1).clamp(min=1)).sqrt()
        enough = (count > 1).to(lengths) * self.momentum
        self.norm_mean.lerp_(mean.to(self.norm_mean), enough.to(self.norm_mean))
        self.norm_std.lerp_(std.to(self.norm_std), enough.to(self.norm_std))

    def extra_repr(self) -> str:
        """What `print(model)` shows of this layer."""
        return f"m={self.margin}, h={self.concentration}, gradient={self.gradient}"


def _angles(cosines: torch.Tensor) -> torch.Tensor:
    return cosines.detach().clamp(-1, 1).arccos()


def _sines(angles: torch.Tensor) -> torch.Tensor:
    return angles.sin().clamp(min=_SMALLEST_SINE)


def _with_slope(cosines: torch.Tensor, value: torch.Tensor, slope: torch.Tensor, gradient: str) -> torch.Tensor:
    """`value` exactly, with `slope` (or 1) as its derivative with respect to `cosines`."""
    if gradient == "straight_through":
        return value + (cosines - cosines.detach())
    return value + slope * (cosines - cosines.detach())
