"""Class centers in a file of their own, so that who needs embeddings only need not fetch a matrix of all identities."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from .damaged_files import damaged
from .hub_cache import cached_commit


CENTERS_FILE = "class_centers.safetensors"
PREFIX = "classifier."

# Arguments of `from_pretrained` that say where a file is.
_PLACE = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


def save_class_centers(state_dict: Mapping[str, torch.Tensor], folder: str | Path) -> dict[str, torch.Tensor]:
    """
    Writes the tensors of the classifier to `class_centers.safetensors`.

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): Of a [`HeadShareForImageClassification`].
        folder (`str` or `Path`): Where to; it is made where needed.

    Returns:
        `dict[str, torch.Tensor]`: The other tensors.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    own = {name: tensor.contiguous() for name, tensor in state_dict.items() if name.startswith(PREFIX)}
    save_file(own, Path(folder) / CENTERS_FILE, metadata={"format": "pt"})
    return {name: tensor for name, tensor in state_dict.items() if name not in own}


def find_class_centers(name_or_path: str | Path | None, options: Mapping[str, Any]) -> str | None:
    """
    Path of `class_centers.safetensors` in a folder or, downloaded, of a Hub repository; `None` where there is none.

    Of a Hub repository it is the file of the same commit as the weights, even if its branch has moved since.

    Args:
        name_or_path (`str` or `Path`, *optional*): Folder or Hub id; none where the weights were given themselves.
        options (`Mapping[str, Any]`): The arguments of `from_pretrained`, which has read the weights already.

    Raises:
        OSError: The file is not in the cache and the Hub cannot be reached.
    """
    if name_or_path is None:
        return None
    if Path(name_or_path).is_dir():
        path = Path(name_or_path, options.get("subfolder") or "", CENTERS_FILE)
        return str(path) if path.is_file() else None
    place = {name: options[name] for name in _PLACE if options.get(name) is not None}
    place["revision"] = cached_commit(name_or_path, options) or options.get("revision")
    try:
        return hf_hub_download(str(name_or_path), CENTERS_FILE, **place)
    except LocalEntryNotFoundError as error:
        raise OSError(
            f"{CENTERS_FILE} of {name_or_path} is not in the cache, because only its embeddings were used so far, and "
            "the Hub cannot be reached; load the classifier once with a connection, or load HeadShareModel"
        ) from error
    except EntryNotFoundError:
        return None


def load_class_centers(model: nn.Module, path: str | Path, missing: set[str]) -> set[str]:
    """
    Reads the classifier's tensors into `model`.

    Args:
        model (`nn.Module`): A [`HeadShareForImageClassification`].
        path (`str` or `Path`): What [`find_class_centers`] returned.
        missing (`set[str]`): Names of the tensors of `model` that its checkpoint did not hold.

    Returns:
        `set[str]`: The names that are still missing.

    Raises:
        ValueError: The file is damaged, has a tensor that the model lacks, or one of another shape.
    """
    try:
        centers, own = load_file(path), model.state_dict()
    except SafetensorError as error:
        raise damaged(path, error) from error
    for name, tensor in centers.items():
        if name not in own or own[name].shape != tensor.shape:
            expected = tuple(own[name].shape) if name in own else "no such tensor"
            raise ValueError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, but the model has {expected}; its `head_type` and "
                "`num_labels` must be those of the file"
            )
    model.load_state_dict(centers, strict=False)
    return missing - centers.keys()
