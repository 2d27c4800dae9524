"""Embeddings of all images of a data set, by one process or several, in memory or resumable on disk."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..models import HeadShareForImageClassification, embedding_tap
from .embedding_key import embedding_key
from .embedding_parts import EmbeddingParts
from .modes import evaluating
from .part_folder import part_ranges
from .processes import broadcast, create_accelerator, on_main_process
from .rounds import compute_rows


# About 16 MB of embeddings of width 512 with their mirror images.
PART_ROWS = 4096


def extract_embeddings(
    model: nn.Module,
    dataset: Dataset,
    *,
    batch_size: int = 256,
    flip: bool = False,
    name: str = "images",
    folder: str | Path | None = None,
    processor: Any | None = None,
    accelerator: Accelerator | None = None,
    num_workers: int = 0,
    part_rows: int = PART_ROWS,
    progress: bool = True,
) -> np.ndarray | None:
    """
    Embeds every image of a data set, in evaluation mode and without gradients. Under `accelerate launch` every process
    does its share, with the mixed precision of the accelerator.

    Args:
        model (`nn.Module`):
            [`HeadShareModel`], [`HeadShareForImageClassification`], any model whose output has `embeddings`, or a
            classifier of transformers or timm that [`find_classifier`] understands. It is moved to the accelerator's
            device and keeps its modes.
        dataset (`Dataset`):
            Map-style; its items or, from `__getitems__`, batches have `pixel_values`. E.g. `VerificationSet.dataset`.
        batch_size (`int`, *optional*, defaults to 256): Images at a time in every process.
        flip (`bool`, *optional*, defaults to `False`): Also embed the images mirrored left to right.
        name (`str`, *optional*, defaults to `"images"`): Of the set, for messages and the key of `folder`.
        folder (`str` or `Path`, *optional*):
            Where to keep the rows, in safetensors files. The next call with the same folder goes on after the last
            whole file, with any number of processes. The folder belongs to these weights, this set (its name, its
            length and sixteen of its images as the network reads them), this processor, `flip` and precision.
        processor (`Any`, *optional*): The image processor of `dataset`, so that an error can say what differs in it.
        accelerator (`accelerate.Accelerator`, *optional*): Defaults to a new one.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode images, for every process that embeds.
        part_rows (`int`, *optional*, defaults to 4096): Rows in a file of `folder`.
        progress (`bool`, *optional*, defaults to `True`): Whether the main process shows a bar.

    Returns:
        `np.ndarray` of `float32` and shape `(num_images, embedding_size)`: In the order of the data set; with `flip` the
        width is twice that, and the right half belongs to the mirrored images. `None` in every process but the main one,
        which alone reads and writes `folder`, so that a set is in memory once.

    Raises:
        ValueError: There is no image, an argument is not positive, the model or its input does not fit, an embedding is
            not finite (names the image), or `folder` belongs to something else (names what differs).

    Example:

    ```python
    >>> pairs = load_verification_set("lfw.bin")
    >>> embeddings = extract_embeddings(model, pairs.dataset(processor), flip=True)
    ```
    """
    num_images = len(dataset)  # type: ignore[arg-type]
    _check_counts(num_images, name, batch_size=batch_size, part_rows=part_rows)
    accelerator = accelerator or create_accelerator()
    model = accelerator.unwrap_model(model).to(accelerator.device)
    embed = _embedder(model, flip, accelerator)

    def open_parts() -> EmbeddingParts | None:
        if folder is None:
            return None
        key = embedding_key(model, dataset, num_images, name, processor, flip, accelerator.mixed_precision)
        return EmbeddingParts(folder, key, num_images, part_rows)

    parts = on_main_process(accelerator, open_parts)
    ranges = part_ranges(num_images, part_rows)
    missing = broadcast(accelerator, ranges if parts is None else parts.missing())
    rows = _Rows(num_images, ranges, parts, missing) if accelerator.is_main_process else None
    blocks = compute_rows(embed, dataset, missing, accelerator, batch_size, num_workers)
    bar = tqdm(
        total=num_images,
        initial=num_images - sum(map(len, missing)),
        desc=f"embedding {name}",
        unit="images",
        disable=None if progress and accelerator.is_main_process else True,
    )
    with bar, evaluating(model), torch.inference_mode():
        for block, found in blocks:
            _check_finite(found, block, name)
            if rows is not None:
                rows.add(block, found)
            bar.update(len(block))
    return None if rows is None else rows.values


class _Rows:
    """The matrix as it grows: rows that were there, and new ones, which are written as soon as a part is whole."""

    def __init__(self, num_rows: int, ranges: list[range], parts: EmbeddingParts | None, missing: list[range]) -> None:
        self._num_rows, self._parts, self._missing = num_rows, parts, list(missing)
        self._values: np.ndarray | None = None
        for part in ranges:
            if parts is not None and part not in missing:
                self._fill(part, parts.read(part))

    @property
    def values(self) -> np.ndarray:
        """The matrix."""
        assert self._values is not None
        return self._values

    def add(self, rows: range, values: np.ndarray) -> None:
        """Puts new rows in; they come in order and end at the end of a part."""
        self._fill(rows, values)
        if rows.stop == self._missing[0].stop:
            part = self._missing.pop(0)
            if self._parts is not None:
                self._parts.write(part, self.values[part.start : part.stop])

    def _fill(self, rows: range, values: np.ndarray) -> None:
        if self._values is None:
            self._values = np.empty((self._num_rows, values.shape[1]), dtype=np.float32)
        self._values[rows.start : rows.stop] = values


def _embedder(model: nn.Module, flip: bool, accelerator: Accelerator) -> Callable[[torch.Tensor], torch.Tensor]:
    """From pixels to embeddings, as wide as the result."""
    try:
        tap, problem = embedding_tap(model), None
    except ValueError as error:
        # Without a classifier to listen at, the output itself has to have the embeddings.
        tap, problem = None, error

    # Nobody looks at the logits, which with many classes are larger and take longer than the rest.
    network = model.base_model if isinstance(model, HeadShareForImageClassification) else model
    # An ONNX file has none, and reads float32; those of quantized networks are integers too.
    floating = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    dtype = next(floating, torch.float32)

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        with accelerator.autocast(), nullcontext() if tap is None else tap.without_logits():
            output = network(pixel_values=pixels.to(dtype))
        embeddings = getattr(output, "embeddings", None) if tap is None else tap.take()
        if embeddings is None:
            raise ValueError(f"the output of {type(model).__name__} has no `embeddings`, and {problem}") from problem
        return embeddings

    if not flip:
        return embed
    return lambda pixels: torch.cat([embed(pixels), embed(pixels.flip(-1))], dim=1)


def _check_counts(num_images: int, name: str, **counts: int) -> None:
    if not num_images:
        raise ValueError(f"{name} has no images; there is nothing to embed")
    for field, count in counts.items():
        if count < 1:
            raise ValueError(f"`{field}` is {count}; it must be at least 1")


def _check_finite(embeddings: np.ndarray, rows: range, name: str) -> None:
    if embeddings.ndim != 2:
        raise ValueError(
            f"embeddings have shape {embeddings.shape}; there must be one vector for each image of {name}"
        )
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise ValueError(
            f"the embedding of image {rows[bad[0]]} of {name} is not finite; look at this image, and embed in float32 if "
            "the model runs in float16"
        )
