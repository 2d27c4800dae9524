"""What a checkpoint file holds: the weights of one network, and what else was saved with them."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..models.source_layouts import student_names, unwrapped_names
from .convert_formats import is_zip, load_tensors, refuse_programs
from .convert_names import rename_tensors
from .convert_pickle import RefusedError, StandIn


# insightface's entry for the class centers of one process.
CENTERS_ENTRY = "state_dict_softmax_fc"
_SAFETENSORS = ".safetensors"


@dataclass
class Checkpoint:
    """
    The weights in a file.

    Args:
        weights (`dict[str, torch.Tensor]`): Tensors by the names of the network, without what wraps it.
        notes (`list[str]`): Where in the file they were, and what was left out.
    """

    weights: dict[str, torch.Tensor]
    notes: list[str] = field(default_factory=list)


def read_file(path: str | os.PathLike) -> Any:
    """
    Content of a `.safetensors` file, or of any other one as `torch.save` writes it. Nothing in it is run.

    What is set on tensors as attributes is left out. Sparse and quantized tensors are read only from files that
    `torch.load(..., weights_only=True)` takes as they are: neither from those of torch before 1.6, nor beside settings.

    Args:
        path (`str` or `os.PathLike`): The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, in another format, or would have to be run; names the file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return load_file(path) if path.suffix == _SAFETENSORS else _read_pickle(path)
    except RefusedError as error:
        raise ValueError(
            f"{path} asks for {error}; refused, because a checkpoint is made of tensors. Where it was made, save "
            "`model.state_dict()` alone"
        ) from error
    except Exception as error:
        raise ValueError(f"{path} is damaged, or no checkpoint: {_first_line(error)}") from error


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        refuse_programs(file)
        if is_zip(file):
            # It refuses settings and NumPy numbers. Errors of damaged files come again below.
            with suppress(Exception):
                return torch.load(file, map_location="cpu", weights_only=True)
    return load_tensors(path)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0] or repr(error)


def read_checkpoint(path: str | os.PathLike, entry: str | None = None) -> Checkpoint:
    """
    The weights in a file: the file's own content, or the one entry of a training checkpoint that is a state dict.

    `module.` (DistributedDataParallel) and `_orig_mod.` (a compiled module) are taken off the names, and so is the
    `model_s.` of Alibaba-MIIL/HeadSharingKD's students; the `t_head.` next to it is the teacher's classifier and left
    out.

    Args:
        path (`str` or `os.PathLike`): A file of any source that the converters know.
        entry (`str`, *optional*): Which entry to take, where there are several state dicts.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read (see [`read_file`]), or has no state dict, or several, or two tensors of one name.
    """
    content = read_file(path)
    candidates = {}
    if isinstance(content, dict):
        candidates = {key: value for key, value in content.items() if is_state_dict(value) and key != CENTERS_ENTRY}
    if entry is None and not candidates and is_state_dict(content):
        return _unwrapped(content, [], path)
    chosen = _choose(content, candidates, entry, path)
    others = [key for key in content if key != chosen]
    notes = [f"took the entry {chosen!r}" + (f", left out: {', '.join(map(str, others))}" if others else "")]
    return _unwrapped(candidates[chosen], notes, path)


def is_state_dict(value: Any) -> bool:
    """Whether this is a dictionary of tensors by name, and not empty."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(item, torch.Tensor) for key, item in value.items())
    )


def _choose(content: Any, candidates: dict[str, Any], entry: str | None, path: str | os.PathLike) -> str:
    if entry is not None and entry not in candidates:
        raise ValueError(f"{path} has no state dict {entry!r}; it has: {', '.join(candidates) or 'none'}")
    if entry is None and len(candidates) > 1:
        raise ValueError(f"{path} has several state dicts: {', '.join(candidates)}; say which one with `entry`")
    if not candidates:
        raise ValueError(f"{path} has no state dict; it holds {_described(content)}")
    return entry if entry is not None else next(iter(candidates))


def _described(content: Any) -> str:
    if not isinstance(content, dict):
        return _kind(content)
    others = [f"{key} ({_kind(value)})" for key, value in content.items() if not isinstance(value, torch.Tensor)]
    tensors = len(content) - len(others)
    return ", ".join(([f"{tensors} tensors"] if tensors else []) + others) or "nothing"


def _kind(value: Any) -> str:
    if isinstance(value, StandIn):
        return f"a pickled {value.name}"
    return f"a {type(value).__name__}"


def _unwrapped(weights: Mapping[str, torch.Tensor], notes: list[str], path: str | os.PathLike) -> Checkpoint:
    names = unwrapped_names(weights)
    kept = student_names(names)
    dropped = [name for name in names if name not in kept]
    if dropped:
        notes.append(f"left out the teacher's classifier: {', '.join(dropped)}")
    try:
        return Checkpoint(rename_tensors(weights, kept), notes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
