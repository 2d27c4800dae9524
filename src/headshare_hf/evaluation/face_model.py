"""What an evaluation starts from: a model with its image processor, or embeddings that were stored."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor

from ..models import HeadShareConfig, HeadShareModel
from ..models.hub_cache import PROCESSOR_FILE, cached_commit, explained, is_missing
from .embedding_key import weights_digest


@dataclass(frozen=True, eq=False)
class FaceModel:
    """
    A network and what belongs to it.

    Attributes:
        name (`str`): Hub id or folder.
        revision (`str`, *optional*): Commit on the Hub; `None` for a folder.
        digest (`str`): SHA-256 of the weights, see [`weights_digest`].
        model ([`HeadShareModel`]): In float32.
        processor (`Any`): Its image processor.
    """

    name: str
    revision: str | None
    digest: str
    model: HeadShareModel
    processor: Any

    def describe(self) -> dict[str, Any]:
        """Name, revision, digest and the image processor's configuration, as JSON has them."""
        return {
            "name": self.name,
            "revision": self.revision,
            "weights_sha256": self.digest,
            "backbone": self.model.config.backbone,
            "processor": json.loads(self.processor.to_json_string()),
        }


@dataclass(frozen=True, eq=False)
class StoredFeatures:
    """
    Embeddings from a file.

    Attributes:
        path (`Path`): The file.
        values (`np.ndarray` or `torch.Tensor` of shape `(num_images, width)`): What it holds.
    """

    path: Path
    values: np.ndarray | torch.Tensor

    def describe(self) -> dict[str, Any]:
        """Name and SHA-256 of the file."""
        with self.path.open("rb") as file:
            return {"features": self.path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def load_face_model(name_or_path: str, revision: str | None = None) -> FaceModel:
    """
    Loads a model of this package for embeddings alone; class centers are neither read nor fetched.

    Args:
        name_or_path (`str`): Hub id or folder, saved from [`HeadShareModel`] or [`HeadShareForImageClassification`].
        revision (`str`, *optional*): Branch, tag or commit on the Hub. It is resolved once, for all files.

    Raises:
        OSError: There is no such model, or it is neither in the cache nor to be reached; tells what the cache holds.
        ValueError: It is of another package, or has no image processor.
    """
    config, _ = HeadShareConfig.get_config_dict(name_or_path, revision=revision)
    if config.get("model_type") != "headshare":
        raise ValueError(
            f"{name_or_path} is a model of type {config.get('model_type')!r}, and this evaluation reads type "
            "'headshare'; for others call `extract_embeddings` and `verify_pairs`, or store the features of IJB images "
            "and give them with --features"
        )
    commit = cached_commit(name_or_path, {"revision": revision})
    processor = load_image_processor(name_or_path, commit or revision)
    model = HeadShareModel.from_pretrained(name_or_path, revision=commit or revision, dtype=torch.float32)
    return FaceModel(name_or_path, commit, weights_digest(model), model, processor)


def load_features(path: str | Path) -> StoredFeatures:
    """
    Args:
        path (`str` or `Path`): A `.npy` file, or a `.safetensors` file with one tensor.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is of another kind, holds several tensors, or none of two dimensions.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"the features {path} do not exist")
    if path.suffix == ".npy":
        values: np.ndarray | torch.Tensor = np.load(path, mmap_mode="r", allow_pickle=False)
    elif path.suffix == ".safetensors":
        tensors = load_file(path)
        if len(tensors) != 1:
            raise ValueError(f"{path} holds the tensors {', '.join(sorted(tensors))}; features are one tensor")
        values = next(iter(tensors.values()))
    else:
        raise ValueError(f"{path} is neither a .npy nor a .safetensors file")
    if len(values.shape) != 2:
        raise ValueError(f"{path} has the shape {tuple(values.shape)}; features have the shape (num_images, width)")
    return StoredFeatures(path, values)


def load_image_processor(name_or_path: str, revision: str | None = None, **kwargs: Any) -> Any:
    """
    Args:
        name_or_path (`str`): Hub id or folder.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        kwargs: Further arguments of `AutoImageProcessor.from_pretrained`.

    Raises:
        OSError: It is neither in the cache nor to be reached; tells what the cache holds.
        ValueError: Folder or repository have no image processor.
    """
    options = {"revision": revision, **kwargs}
    try:
        with explained(name_or_path, options, PROCESSOR_FILE):
            return AutoImageProcessor.from_pretrained(name_or_path, **options)
    except OSError as error:
        if not is_missing(name_or_path, PROCESSOR_FILE, options):
            raise
        raise ValueError(
            f"{name_or_path} has no image processor ({PROCESSOR_FILE}), so that size, statistics and channel "
            "order of its images are not known; save one beside the model: `HeadShareImageProcessor(size=..., "
            "image_mean=..., image_std=..., channel_order=...).save_pretrained(FOLDER)`"
        ) from error
