"""From features of images to features of templates, and from these to the scores of pairs, as insightface does it."""

from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.ijb import IjbProtocol


# Rows of images, and entries of a block of the similarity matrix: 64 MB of features, 256 MB of similarities. With
# 1,024 rows, pooling IJB-C took four times as long.
_IMAGE_ROWS = 16384
_BLOCK_ENTRIES = 1 << 25


def pool_templates(
    features: Any,
    protocol: IjbProtocol,
    *,
    flip: bool = True,
    norm: bool = True,
    detector_score: bool = True,
    progress: bool = True,
) -> np.ndarray:
    """
    Pools the features of the images of every template: the mean over the images of one medium, the sum over the media of
    the template, then unit length. This is `eval_ijbc.py` of insightface, whose test modes N, D and F are the three
    switches; sums are in float64.

    Args:
        features (`np.ndarray`, `np.memmap` or `torch.Tensor` of shape `(num_images, embedding_size)`):
            In the order of `protocol.image_names`. With `flip` they have shape `(num_images, 2 * embedding_size)`: the
            feature of the image and, on its right, that of its mirror image.
        protocol ([`IjbProtocol`]): Which image belongs to what.
        flip (`bool`, *optional*, defaults to `True`):
            Add the features of image and mirror image. Without it, features are used as they are.
        norm (`bool`, *optional*, defaults to `True`):
            Keep the length of features, which is a weight: features of bad images are short. Without it, they are
            scaled to unit length first.
        detector_score (`bool`, *optional*, defaults to `True`): Weight images by the score of the face detector.
        progress (`bool`, *optional*, defaults to `True`): Show a progress bar, on a terminal.

    Returns:
        `np.ndarray` of `float64` and shape `(num_templates, embedding_size)`: In the order of `protocol.template_ids`.

    Raises:
        ValueError: The number of rows or columns does not fit, a feature is not finite or, without `norm`, zero (names
            row and image), or the features of a template cancel (names the template).
    """
    _check_shape(features, protocol, flip)
    weights = image_weights(protocol, detector_score)
    templates = torch.from_numpy(protocol.image_template)
    size = features.shape[1] // 2 if flip else features.shape[1]
    pooled = torch.zeros(protocol.num_templates, size, dtype=torch.float64)
    starts = range(0, len(features), _IMAGE_ROWS)
    for start in tqdm(starts, desc="pooling templates", disable=None if progress else True):
        rows = slice(start, start + _IMAGE_ROWS)
        block = _image_features(features[rows], start, protocol, flip, norm)
        pooled.index_add_(0, templates[rows], block.mul_(weights[rows, None]))
    lengths = pooled.norm(dim=1, keepdim=True)
    empty = np.flatnonzero(lengths.numpy() == 0)
    if len(empty):
        raise ValueError(f"the features of template {protocol.template_ids[empty[0]]} add up to zero")
    return pooled.div_(lengths).numpy()


def image_weights(protocol: IjbProtocol, detector_score: bool) -> torch.Tensor:
    """
    The weight of every image in the sum of its template: one divided by the number of images of its medium in that
    template, times the detector's score.

    Args:
        protocol ([`IjbProtocol`]): Which image belongs to what.
        detector_score (`bool`): Whether to weight by the score of the face detector.

    Returns:
        `torch.Tensor` of `float64` and shape `(num_images,)`.
    """
    media = protocol.image_template.astype(np.int64) * (int(protocol.image_media.max()) + 1) + protocol.image_media
    _, medium, counts = np.unique(media, return_inverse=True, return_counts=True)
    weights = 1 / counts[medium].astype(np.float64)
    return torch.from_numpy(weights * protocol.detector_scores if detector_score else weights)


def score_pairs(templates: np.ndarray, first: np.ndarray, second: np.ndarray, *, progress: bool = True) -> np.ndarray:
    """
    Cosine similarities of pairs of templates.

    All products of the templates on the left with those on the right, block by block, take a tenth of the time of
    one scalar product a pair, because the protocols pair nearly every fourth of them. They are in float64: float32 moves
    the TAR by single pairs.

    Args:
        templates (`np.ndarray` of shape `(num_templates, embedding_size)`): Of unit length.
        first (`np.ndarray` of integers and shape `(num_pairs,)`): Row of the first template of every pair.
        second (`np.ndarray` of integers and shape `(num_pairs,)`): Row of the second.
        progress (`bool`, *optional*, defaults to `True`): Show a progress bar, on a terminal.

    Returns:
        `np.ndarray` of `float64` and shape `(num_pairs,)`.
    """
    left, left_row = occurring_rows(first, len(templates))
    right, right_row = occurring_rows(second, len(templates))
    columns = torch.from_numpy(templates[right]).double().T
    rows = max(1, min(_BLOCK_ENTRIES // len(right), len(left)))
    scores = np.empty(len(first), dtype=np.float64)
    for start in tqdm(range(0, len(left), rows), desc="scoring pairs", disable=None if progress else True):
        block = (torch.from_numpy(templates[left[start : start + rows]]).double() @ columns).numpy()
        row = left_row[first] - start
        inside = np.flatnonzero((row >= 0) & (row < rows)) if rows < len(left) else slice(None)
        scores[inside] = block[row[inside], right_row[second[inside]]]
    return scores


def occurring_rows(rows: np.ndarray, num_templates: int) -> tuple[np.ndarray, np.ndarray]:
    """
    The templates that occur on one side of pairs.

    Args:
        rows (`np.ndarray` of integers and shape `(num_pairs,)`): Row of a template in every pair.
        num_templates (`int`): Number of all templates.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Those that occur, ascending, and for each of all templates its place there.
    """
    present = np.zeros(num_templates, dtype=np.bool_)
    present[rows] = True
    return np.flatnonzero(present), np.cumsum(present, dtype=np.int32) - 1


def _image_features(block: Any, start: int, protocol: IjbProtocol, flip: bool, norm: bool) -> torch.Tensor:
    """Of some images, in float64: with the mirror image added, and of unit length if asked for."""
    source = block.detach().cpu().double().numpy() if isinstance(block, torch.Tensor) else block
    half = source.shape[1] // 2 if flip else source.shape[1]
    sums = source[:, :half].astype(np.float64)  # A copy, which the caller may scale in place.
    if flip:
        sums += source[:, half:]
    values = torch.from_numpy(sums)
    if not values.sum().isfinite():
        _raise_for_first(~values.isfinite().all(dim=1), start, protocol, "is not finite; look at the network, and at")
    if not norm:
        lengths = values.norm(dim=1, keepdim=True)
        _raise_for_first(
            lengths[:, 0] == 0, start, protocol, "is zero and has no direction; use norm=True, or look at"
        )
        values /= lengths
    return values


def _raise_for_first(bad: torch.Tensor, start: int, protocol: IjbProtocol, problem: str) -> None:
    if bad.any():
        row = start + int(bad.int().argmax())
        raise ValueError(f"the feature in row {row} {problem} image {protocol.image_names[row]!r}")


def _check_shape(features: Any, protocol: IjbProtocol, flip: bool) -> None:
    shape = tuple(features.shape)
    if len(shape) != 2 or shape[0] != protocol.num_images:
        raise ValueError(
            f"features have shape {shape}; the protocol has {protocol.num_images} images, so that it must be "
            f"({protocol.num_images}, embedding_size), a row for each of `protocol.image_names`"
        )
    if flip and shape[1] % 2:
        raise ValueError(
            f"features have {shape[1]} columns, which is odd; with flip=True the left half is the image's feature and "
            "the right half its mirror image's. Use flip=False for features of images alone"
        )
