"""What decoded images depend on, so that others are kept apart from them."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL
import torchvision

from .images import LabeledImages


_FORMAT = 1
_SAMPLED_IMAGES = 16
# What an image processor does to images that are decoded and brought to their size already.
_LATER = frozenset({"do_normalize", "do_rescale", "image_mean", "image_std", "rescale_factor"})


def image_cache_key(images: LabeledImages, settings: Mapping[str, Any]) -> dict[str, Any]:
    """
    Everything that prepared images depend on, but for their shape.

    Args:
        images ([`LabeledImages`]): The images.
        settings (`Mapping[str, Any]`): Those of the image processor.

    Raises:
        FileNotFoundError: An image is in a file that is not there.
    """
    return {
        "format": _FORMAT,
        "split": images.split,
        "fingerprint": images.fingerprint,
        "content": _content_digest(images),
        "processor": {name: str(value) for name, value in settings.items() if name not in _LATER},
        # Other versions may decode and resize to other pixels.
        "pillow": PIL.__version__,
        "torchvision": torchvision.__version__,
    }


def _content_digest(images: LabeledImages) -> str:
    """SHA-256 of some images, evenly spread, or of sizes and times of all files where images are files."""
    found = files_digest(images)
    if found is not None:
        return found
    digest = hashlib.sha256()
    for entry in _sample(images):
        digest.update(hashlib.sha256((entry or {}).get("bytes") or b"").digest())
    return digest.hexdigest()


def files_digest(images: LabeledImages) -> str | None:
    """
    SHA-256 of sizes and times of all image files; `None` where images are no files of their own. A fingerprint over names
    of files stays what it is when an image is replaced.

    Args:
        images ([`LabeledImages`]): The images.

    Raises:
        FileNotFoundError: An image is in a file that is not there.
    """
    if not any(map(_is_file, _sample(images))):
        return None
    digest = hashlib.sha256()
    for entry in filter(_is_file, images.entries(range(len(images)))):
        found = os.stat(entry["path"])
        digest.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _sample(images: LabeledImages) -> Sequence[dict[str, Any] | None]:
    return images.entries(sorted({int(row) for row in np.linspace(0, len(images) - 1, _SAMPLED_IMAGES)}))


def _is_file(entry: dict[str, Any] | None) -> bool:
    return entry is not None and entry["bytes"] is None and entry["path"] is not None
