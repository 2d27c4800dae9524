"""Fingerprints of what embeddings depend on: weights, images, image processor."""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import nn


_SAMPLED_IMAGES = 16


def embedding_key(
    model: nn.Module, dataset: Any, num_images: int, name: str, processor: Any | None, flip: bool, precision: str
) -> dict[str, Any]:
    """
    Everything that embeddings depend on, for [`EmbeddingParts`].

    Args:
        model (`nn.Module`): What embeds.
        dataset (`Any`): Map-style, with `pixel_values` in its items.
        num_images (`int`): Its length.
        name (`str`): Its name.
        processor (`Any`, *optional*): Its image processor.
        flip (`bool`): Whether mirrored images are embedded too.
        precision (`str`): The mixed precision, `"no"` for none.
    """
    return {
        "weights": weights_digest(model),
        "images": {"name": name, "number": num_images, "sample": _images_digest(dataset, num_images)},
        "processor": None if processor is None else processor.to_dict(),
        "flip": flip,
        "mixed_precision": precision,
    }


def weights_digest(model: nn.Module) -> str:
    """
    SHA-256 of names, types, shapes and values of all tensors, in hexadecimal digits.

    Args:
        model (`nn.Module`): On any device.
    """
    digest = hashlib.sha256()
    for tensor_name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{tensor_name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_raw_bytes(tensor))
    return digest.hexdigest()


def _images_digest(dataset: Any, num_images: int) -> str:
    """SHA-256 of some images, evenly spread, as the network reads them: another alignment of the same set differs."""
    digest = hashlib.sha256()
    for index in sorted({int(place) for place in np.linspace(0, num_images - 1, _SAMPLED_IMAGES)}):
        digest.update(_raw_bytes(dataset[index]["pixel_values"]))
    return digest.hexdigest()


def _raw_bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
