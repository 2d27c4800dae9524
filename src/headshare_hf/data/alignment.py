"""Faces at the place and size that face networks are trained with, from five landmarks of each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch.nn import functional as F


# Eyes, tip of the nose and corners of the mouth, left ones of the image first, as x and y in a face of 112x112 pixels.
# Those of insightface's arcface_torch; the ones of a face 96 pixels wide lie 8 pixels further left.
_TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
_NARROW = (112, 96)


def face_template(size: int | tuple[int, int] = 112) -> torch.Tensor:
    """
    Where the landmarks of an aligned face lie.

    Args:
        size (`int` or `tuple[int, int]`, *optional*, defaults to 112):
            Height and width in pixels: a square, for which the template of 112 is scaled, or `(112, 96)`.

    Returns:
        `torch.Tensor` of `float64` and shape `(5, 2)`: Left eye, right eye, nose, left and right corner of the mouth as
        they appear in the image, x before y, in pixels; the center of the first pixel is (0, 0).

    Raises:
        ValueError: There is no template for this size.
    """
    height, width = _height_and_width(size)
    template = torch.tensor(_TEMPLATE, dtype=torch.float64)
    if (height, width) == _NARROW:
        return template - torch.tensor([8.0, 0.0], dtype=torch.float64)
    if height != width or height < 1:
        raise ValueError(f"there is no template for faces of {height}x{width}; use a square size or (112, 96)")
    return template * (height / 112)


def similarity_transform(source: Any, target: Any) -> torch.Tensor:
    """
    The rotation, scale and shift, without reflection, that bring points nearest to others in the sense of least squares
    (S. Umeyama, "Least-squares estimation of transformation parameters between two point patterns", TPAMI 13(4), 1991).

    Args:
        source (`torch.Tensor` or `np.ndarray` of shape `(num_points, 2)` or `(batch_size, num_points, 2)`): x and y.
        target (`torch.Tensor` or `np.ndarray` of the same shape, or of `(num_points, 2)`): x and y.

    Returns:
        `torch.Tensor` of `float64` and shape `(2, 3)` or `(batch_size, 2, 3)`: Matrix M with M (x, y, 1) = (x', y').

    Raises:
        ValueError: The shapes do not fit, a number is not finite, or the points of one side coincide or give no
            direction; names the element of the batch.
    """
    a, b = (torch.as_tensor(points).to("cpu", torch.float64) for points in (source, target))
    _check_points(a, b)
    center_a, center_b = a.mean(dim=-2), b.mean(dim=-2)
    (x, y), (u, v) = ((points - center.unsqueeze(-2)).unbind(-1) for points, center in ((a, center_a), (b, center_b)))
    # In two dimensions the problem is linear in the rotation and scale, taken as one complex number.
    spread = (x * x + y * y).sum(-1)
    real, imaginary = (x * u + y * v).sum(-1), (x * v - y * u).sum(-1)
    strength = torch.hypot(real, imaginary)
    _check_strength(spread, strength, (u * u + v * v).sum(-1), a.square().sum((-1, -2)))
    real, imaginary = real / spread, imaginary / spread
    linear = torch.stack([torch.stack([real, -imaginary], -1), torch.stack([imaginary, real], -1)], -2)
    shift = center_b - (linear @ center_a.unsqueeze(-1)).squeeze(-1)
    return torch.cat([linear, shift.unsqueeze(-1)], dim=-1)


def align_faces(
    images: torch.Tensor | Sequence[PIL.Image.Image], landmarks: Any, size: int | tuple[int, int] = 112
) -> torch.Tensor:
    """
    Turns, scales and cuts out faces so that their landmarks come nearest to the template.

    Pixels are interpolated between their four neighbors, and all outside of the image is black, as
    `cv2.warpAffine` does it in insightface's `eval_ijbc.py` (which rounds positions to 1/32 of a pixel).

    Args:
        images (`torch.Tensor` of `uint8` and shape `(batch_size, num_channels, height, width)`, or `Sequence[PIL.Image.Image]`):
            The images; PIL images may differ in size and become RGB.
        landmarks (`torch.Tensor` or `np.ndarray` of shape `(batch_size, 5, 2)`): See [`face_template`]; in pixels.
        size (`int` or `tuple[int, int]`, *optional*, defaults to 112): See [`face_template`].

    Returns:
        `torch.Tensor` of `uint8` and shape `(batch_size, num_channels, size, size)`.

    Raises:
        ValueError: The shapes do not fit, there is no template for the size, or landmarks give no direction.

    Example:

    ```python
    >>> faces = align_faces([PIL.Image.open("person.jpg")], landmarks)
    >>> embeddings = model(**processor(list(faces), return_tensors="pt")).embeddings
    ```
    """
    points = torch.as_tensor(landmarks)
    if len(images) == 0 or points.shape != (len(images), 5, 2):
        raise ValueError(
            f"`landmarks` have shape {tuple(points.shape)} for {len(images)} images; expected (batch_size, 5, 2)"
        )
    matrices = similarity_transform(points, face_template(size))
    shape = _height_and_width(size)
    if isinstance(images, torch.Tensor):
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"`images` are {images.dtype} of shape {tuple(images.shape)}; expected uint8 of (batch_size, "
                "num_channels, height, width)"
            )
        return _warp(images, matrices, shape)
    pairs = zip(images, matrices, strict=True)
    return torch.cat([_warp(_pixels(image), matrix.unsqueeze(0), shape) for image, matrix in pairs])


def _warp(images: torch.Tensor, matrices: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    height, width = images.shape[2:]
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
    aligned = torch.stack([x, y], dim=-1).view(1, -1, 2)
    inverse = torch.linalg.inv(matrices[:, :, :2]).mT
    positions = (aligned - matrices[:, None, :, 2]) @ inverse
    # grid_sample counts from the outer edge of the first pixel, -1, to that of the last, 1.
    grid = (2 * positions + 1) / torch.tensor([width, height], dtype=torch.float64) - 1
    grid = grid.view(-1, *shape, 2).float().to(images.device)
    warped = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return warped.round_().to(torch.uint8)


def _pixels(image: PIL.Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).unsqueeze(0)


def _height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _check_points(a: torch.Tensor, b: torch.Tensor) -> None:
    fits = a.ndim in (2, 3) and a.shape[-1] == 2 and b.shape in (a.shape, a.shape[-2:])
    if not fits or a.shape[-2] < 2:
        raise ValueError(
            f"points of shape {tuple(a.shape)} cannot be brought to points of shape {tuple(b.shape)}; expected "
            "(num_points, 2) or (batch_size, num_points, 2) with two points or more"
        )
    for points, name in ((a, "source"), (b, "target")):
        bad = (~points.isfinite()).nonzero()
        if len(bad):
            raise ValueError(f"the {name} points at {bad[0].tolist()} are not finite: {points[tuple(bad[0])]}")


def _check_strength(
    spread: torch.Tensor, strength: torch.Tensor, target_spread: torch.Tensor, magnitude: torch.Tensor
) -> None:
    # Points that coincide keep a spread from rounding their center; points with a direction are far above both limits.
    bad = ((spread <= 1e-20 * magnitude) | ~(strength > 1e-9 * (spread * target_spread).sqrt())).nonzero()
    if len(bad):
        place = f" of element {int(bad[0, 0])}" if bad.shape[1] else ""
        raise ValueError(
            f"the points{place} coincide or give no direction, so that no rotation is best; are the landmarks in order?"
        )
