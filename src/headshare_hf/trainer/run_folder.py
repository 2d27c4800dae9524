"""What an output folder says about the run in it, and checkpoints that appear whole or not at all."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.trainer_utils import get_last_checkpoint

from .sharding import plain_class


RUN_FILE = "run.json"
STAGING = ".unfinished"
AUXILIARY_FILE = "auxiliary.safetensors"
CLOCK_FILE = "clock.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


class RunFolderError(ValueError):
    """The output folder holds something else than this run."""


def weights_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256, in hexadecimal, over names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Class, network, size and number of classes of a model, as a run record holds them."""
    config = getattr(model, "config", None)
    return {
        "class": plain_class(model).__name__,
        "backbone": getattr(config, "backbone", None) or getattr(config, "architecture", None),
        "num_labels": getattr(config, "num_labels", None),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def read_run(output_dir: str | Path) -> dict[str, Any] | None:
    """
    The record in `output_dir`, or `None`.

    Raises:
        RunFolderError: The file is not JSON.
    """
    path = Path(output_dir) / RUN_FILE
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RunFolderError(f"{path} is damaged ({error}); move the folder away and start again") from error


def write_json(path: Path, content: Any) -> None:
    """Writes beside the target and renames, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, path)


def is_finished(output_dir: str | Path) -> bool:
    """Whether the run in `output_dir` came to its end."""
    record = read_run(output_dir)
    return bool(record and record.get("finished"))


def last_checkpoint(output_dir: str | Path) -> str | None:
    """The newest whole checkpoint in `output_dir`, or `None`. Unfinished ones have another name and are not found."""
    return get_last_checkpoint(str(output_dir)) if Path(output_dir).is_dir() else None


def claim(output_dir: str | Path, identity: dict[str, Any], resuming: bool) -> None:
    """
    Makes sure that `output_dir` is free for, or already belongs to, the run described by `identity`.

    Raises:
        RunFolderError: Another run is there, or the same one and the caller does not resume it.
    """
    folder, record = Path(output_dir), read_run(output_dir)
    found = last_checkpoint(folder) or next(
        (str(folder / name) for name in _WEIGHTS if (folder / name).exists()), None
    )
    if record is None and found is not None:
        raise RunFolderError(f"{folder} has weights ({found}) but no {RUN_FILE}; choose another output_dir")
    # Before the first checkpoint there is nothing that starting again, even with other options, could lose.
    if record is not None and (found is not None or record.get("finished")):
        check_identity(folder, record, identity)
        if not resuming:
            raise RunFolderError(
                f"{folder} already holds this run; resume it with `resume_from_checkpoint=True`, or choose another "
                "output_dir"
            )
    shutil.rmtree(folder / STAGING, ignore_errors=True)
    _name_best_checkpoints(folder)
    write_json(folder / RUN_FILE, {"identity": identity, "finished": False})


def _name_best_checkpoints(folder: Path) -> None:
    """
    Lets checkpoints call the best one as this run does: transformers compares paths as texts, and deletes the best
    checkpoint of a run that goes on under another spelling of its folder, or after a move.
    """
    for path in folder.glob("checkpoint-*/trainer_state.json"):
        state = json.loads(path.read_text(encoding="utf-8"))
        best = state.get("best_model_checkpoint")
        here = folder / Path(best).name if best else None
        if here is not None and str(here) != best and here.is_dir():
            times = path.parent.stat()
            write_json(path, {**state, "best_model_checkpoint": str(here)})
            # By which the oldest checkpoint is found.
            os.utime(path.parent, ns=(times.st_atime_ns, times.st_mtime_ns))


def check_identity(folder: Path, record: dict[str, Any], identity: dict[str, Any]) -> None:
    """
    Raises:
        RunFolderError: The record is of another run; the first difference is named.
    """
    difference = first_difference(record["identity"], json.loads(json.dumps(identity)))
    if difference is not None:
        raise RunFolderError(f"{folder} holds another run: {difference}. Choose another output_dir")


def finish(output_dir: str | Path, results: dict[str, Any]) -> None:
    """Marks the run as finished and stores its `results`."""
    record = read_run(output_dir) or {}
    write_json(Path(output_dir) / RUN_FILE, {**record, "finished": True, "results": results})


def publish_checkpoint(staged: Path, target: Path) -> None:
    """Moves a checkpoint that is completely written to where resuming looks for it, in one step."""
    _sync(staged)
    if target.exists():
        # The same step saved twice, e.g. at the end of a resumed run. Out of the way first: a folder that is half
        # deleted must not be found.
        outdated = staged.with_name("outdated")
        os.replace(target, outdated)
        os.replace(staged, target)
        shutil.rmtree(outdated)
    else:
        os.replace(staged, target)


def _sync(folder: Path) -> None:
    # A rename may reach the disk before the contents do.
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())


def first_difference(old: Any, new: Any, where: str = "") -> str | None:
    """Says where two contents of JSON files differ first, in the order of the names, or `None`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            found = first_difference(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
            if found is not None:
                return found
        return None
    return None if old == new else f"`{where}` is {old!r} there and {new!r} here"
