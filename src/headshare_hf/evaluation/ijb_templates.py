"""From features of images to features of templates, and from these to the scores of pairs, as insightface does it."""

import mmap
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.ijb import IjbProtocol
from .arrays import to_array


# Rows of images that are pooled at a time, so that what is made of them stays in the cache of the processor.
_IMAGE_ROWS = 1024
# Entries of a block of the similarity matrix, 1 GB. All that IJB-C needs is half of that, and a second block would mean a
# second pass over the pairs.
_BLOCK_ENTRIES = 1 << 27
# Pairs whose places in that matrix are worked out at a time, likewise for the cache.
_PAIR_ROWS = 1 << 16


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
    weights = image_weights(protocol, detector_score).numpy()
    templates = torch.from_numpy(protocol.image_template)
    views = 2 if flip else 1
    size = features.shape[1] // views
    pooled = torch.zeros(protocol.num_templates, size, dtype=torch.float64)
    buffers = cycle(np.empty((2, _IMAGE_ROWS, size)))

    def weigh(start: int) -> tuple[slice, torch.Tensor]:
        rows = slice(start, start + _IMAGE_ROWS)
        block = to_array(features[rows]).reshape(-1, views, size)
        scales = weights[rows] if norm else weights[rows] / _lengths(block, start, protocol)
        values = np.einsum("ivk,i->ik", block, scales, out=next(buffers)[: len(block)])
        _release(features)
        return rows, torch.from_numpy(values)

    starts = range(0, len(features), _IMAGE_ROWS)
    blocks = tqdm(_one_ahead(weigh, starts), "pooling templates", len(starts), disable=None if progress else True)
    for rows, values in blocks:
        pooled.index_add_(0, templates[rows], values)
    lengths = pooled.norm(dim=1, keepdim=True)
    _check_templates(lengths[:, 0].numpy(), features, protocol)
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
    # Places in the matrix are counted through, row by row.
    row_start, column = left_row.astype(np.int64) * len(right), right_row.astype(np.int64)
    scores = np.empty(len(first), dtype=np.float64)
    parts = [slice(start, start + _PAIR_ROWS) for start in range(0, len(first), _PAIR_ROWS)]

    def fill(part: slice) -> None:
        place = row_start.take(first[part])
        place += column.take(second[part])
        if rows == len(left):
            block.take(place, out=scores[part], mode="clip")  # All are inside, and to check that takes a copy.
        else:
            place -= start * len(right)
            inside = np.flatnonzero((place >= 0) & (place < len(block)))
            scores[part][inside] = block[place[inside]]

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for start in tqdm(range(0, len(left), rows), desc="scoring pairs", disable=None if progress else True):
            block = (torch.from_numpy(templates[left[start : start + rows]]).double() @ columns).numpy().ravel()
            list(threads.map(fill, parts))
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


def _one_ahead(function: Callable[[int], Any], items: Iterable[int]) -> Iterator[Any]:
    """What a function returns for every item; a second thread works on the next one meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        pending: Future | None = None
        for item in items:
            following = thread.submit(function, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()


def _lengths(block: np.ndarray, start: int, protocol: IjbProtocol) -> np.ndarray:
    """Of the features of some images `(num_images, num_views, size)`, views added."""
    sums = block.sum(axis=1, dtype=np.float64)
    lengths = np.sqrt(np.einsum("ik,ik->i", sums, sums))
    _raise_for_first(lengths == 0, start, protocol, "is zero and has no direction; use norm=True, or look at")
    return lengths


def _release(features: Any) -> None:
    """
    Gives back what was read of a memory map, which otherwise counts as memory of this process until others need it. A
    private map is left alone, as its changes would be lost.
    """
    mapped = isinstance(features, np.memmap) and features.mode != "c" and isinstance(features.base, mmap.mmap)
    if mapped and hasattr(mmap, "MADV_DONTNEED"):
        features.base.madvise(mmap.MADV_DONTNEED)


def _check_templates(lengths: np.ndarray, features: Any, protocol: IjbProtocol) -> None:
    if not np.isfinite(lengths).all():
        # The sums tell that a feature is not finite; which one it is need only be looked for now.
        for start in range(0, len(features), _IMAGE_ROWS):
            bad = ~np.isfinite(to_array(features[start : start + _IMAGE_ROWS])).all(axis=1)
            _raise_for_first(bad, start, protocol, "is not finite; look at the network, and at")
        template = protocol.template_ids[np.flatnonzero(~np.isfinite(lengths))[0]]
        raise ValueError(
            f"the features of template {template} are too large to add up; divide all of them by a number"
        )
    empty = np.flatnonzero(lengths == 0)
    if len(empty):
        raise ValueError(f"the features of template {protocol.template_ids[empty[0]]} add up to zero")


def _raise_for_first(bad: np.ndarray, start: int, protocol: IjbProtocol, problem: str) -> None:
    if bad.any():
        row = start + int(bad.argmax())
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
