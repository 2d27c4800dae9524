"""One cell of a comparison: trained, or gone on with, and then judged on images that chose nothing."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from .. import __version__
from . import run_folder
from .comparison import Cell
from .comparison_checks import TEACHER
from .comparison_identity import describe_cell
from .comparison_judging import describe_images, judge_best, judge_last, last_state, read_test_images
from .recipe import run_recipe
from .recipe_arguments import build_recipe
from .trainer import DistillationTrainer


RESULT_FILE = "cell.json"
# Written before the training: whose code that is, also where another version goes on with it or judges it.
BEGUN_FILE = "begun.json"
_MIB = 2**20


@dataclass(frozen=True)
class Judging:
    """
    How the cells of a comparison are judged.

    Attributes:
        test_split (`str`): What is reported.
        teacher (`Mapping[str, Any]`, *optional*): Section of the trained weights that every student is compared with.
        code (`str`): Version of the code, see [`code_version`], from before the first cell.
    """

    test_split: str
    teacher: Mapping[str, Any] | None
    code: str


@cache
def code_version() -> str:
    """Version of this package and a digest over the sources that training and its results depend on."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for part in ("data", "models", "losses", "trainer", "evaluation"):
        for path in sorted((package / part).rglob("*.py")):
            digest.update(path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"


def run_cell(cell: Cell, output: Path, judging: Judging) -> dict[str, Any]:
    """
    Brings a cell to its end, whatever there is of it already.

    Args:
        cell ([`Cell`]): What is trained. The cells that it needs are finished.
        output (`Path`): Folder of the comparison.
        judging ([`Judging`]): How it is judged.

    Returns:
        `dict[str, Any]`: What its `cell.json` holds: `last` and `best`, measured on the test images with the weights of
        the last epoch and of the one with the best validation accuracy; `cost`, `curve`, `loss_curve`, `data`, `code`,
        `trained_code`, the `options` that all of it depends on, and `networks`, digests of the weights of the cells that
        it needs.

    Raises:
        ValueError: It was finished with other options, or beside other weights of the cells that it needs.
    """
    kept = finished_result(cell, output, judging)
    if kept is not None:
        return kept
    recipe = build_recipe(dict(cell.sections))
    was_finished = run_folder.is_finished(str(recipe.training.output_dir))
    begun = _begin(output / cell.name, judging.code)
    trainer, results = run_recipe(recipe)
    # Before the test images are there.
    cost = {**_cost(trainer, results), "peak_memory_mib": None if was_finished else peak_memory(trainer.args.device)}
    test, _ = read_test_images(recipe, judging.test_split)
    # Weights that are judged again know less of their training than what was written then.
    older: dict[str, Any] = (_read(output, cell) or {}) if was_finished else {}
    last = judge_last(recipe, test, None if cell.row == TEACHER else judging.teacher)
    found = {
        "row": cell.row,
        "seed": cell.seed,
        "options": describe_cell(cell, output, judging.test_split, judging.teacher),
        "networks": networks_of(cell, output),
        "code": judging.code,
        "trained_code": older.get("trained_code", older.get("code", begun)),
        "data": describe_images(trainer.train_dataset, trainer.eval_dataset, test),
        "last": last,
        "best": judge_best(trainer, test, last),
        **_curves(trainer.folder),
        "cost": {**cost, **older.get("cost", {})},
    }
    run_folder.write_json(output / cell.name / RESULT_FILE, found)
    return found


def finished_result(cell: Cell, output: Path, judging: Judging) -> dict[str, Any] | None:
    """
    What `cell.json` of a finished cell holds, or `None`, also where it is from before it held its options: the cell is
    then judged again, without a training.

    Raises:
        RunFolderError: The file is damaged.
        ValueError: The cell was finished with other options, or beside other weights of a cell that it needs; the first
            difference is named.
    """
    found = _read(output, cell)
    if found is None or "options" not in found:
        return None
    here = describe_cell(cell, output, judging.test_split, judging.teacher)
    difference = run_folder.first_difference(found["options"], here)
    if difference is not None:
        raise ValueError(
            f"{output / cell.name} was finished with other options: {difference}. Give another --output, give the row "
            "another name, or move that folder away, and the cell is trained again"
        )
    here = networks_of(cell, output)
    other = [name for name, digest in found.get("networks", {}).items() if here.get(name, digest) != digest]
    if other:
        raise ValueError(
            f"{output / cell.name} was finished beside other weights than {other[0]} has now: that was trained anew since. "
            f"Move {output / cell.name} away, and it is trained again too"
        )
    return found


def networks_of(cell: Cell, output: Path) -> dict[str, str]:
    """Digests of the weights of the cells that a cell needs, by their names, as far as they are trained."""
    files = {name: output / name / "model.safetensors" for name in cell.needs}
    return {name: run_folder.weights_digest(load_file(path)) for name, path in files.items() if path.is_file()}


def begun_by(cells: Sequence[Cell], output: Path) -> dict[str, str]:
    """Versions of the code that began to train cells, by the names of these, where that is known."""
    found = {cell.name: _begun(output / cell.name) for cell in cells}
    return {name: code for name, code in found.items() if code is not None}


def _begun(folder: Path) -> str | None:
    # Before the first checkpoint there is nothing that another version could go on with.
    if not (folder / BEGUN_FILE).is_file() or run_folder.last_checkpoint(folder) is None:
        return None
    return _read_json(folder / BEGUN_FILE, "move the folder away, and the cell is trained again")["code"]


def _begin(folder: Path, code: str) -> str | None:
    if run_folder.last_checkpoint(folder) is None and not run_folder.is_finished(folder):
        run_folder.write_json(folder / BEGUN_FILE, {"code": code})
        return code
    return _begun(folder)


def kept_results(cells: Sequence[Cell], output: Path, judging: Judging) -> dict[str, dict[str, Any]]:
    """
    Of all cells that are finished, what their `cell.json` holds, by their names. Not of one that needs another one which
    is not: only when that is there, it can be said whether it is still the same.

    Args:
        cells (`Sequence[Cell]`): Those that others need come first.
        output (`Path`): Folder of the comparison.
        judging ([`Judging`]): How they are judged.

    Raises:
        RunFolderError, ValueError: As [`finished_result`].
    """
    kept: dict[str, dict[str, Any]] = {}
    for cell in cells:
        found = finished_result(cell, output, judging)
        if found is not None and kept.keys() >= set(cell.needs):
            kept[cell.name] = found
    return kept


def _read(output: Path, cell: Cell) -> dict[str, Any] | None:
    path = output / cell.name / RESULT_FILE
    return _read_json(path, "delete it, and the cell is judged again") if path.is_file() else None


def _read_json(path: Path, remedy: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise run_folder.RunFolderError(f"{path} is damaged ({error}); {remedy}") from error


def peak_memory(device: torch.device) -> float:
    """Largest memory so far in MiB: of the accelerator, or of this process where there is none."""
    if device.type != "cpu":
        return torch.accelerator.max_memory_allocated(device) / _MIB
    # Only where there are such systems.
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / _MIB if platform.system() == "Darwin" else used / 1024


def _curves(folder: Path) -> dict[str, list[tuple[float, float]]]:
    history = last_state(folder).get("log_history", [])
    names = {"curve": "eval_accuracy", "loss_curve": "loss"}
    return {key: [(row["epoch"], row[name]) for row in history if name in row] for key, name in names.items()}


def _cost(trainer: DistillationTrainer, results: Mapping[str, Any]) -> dict[str, Any]:
    whole = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    published = sum(parameter.numel() for parameter in trainer.student.parameters())
    return {
        "train_seconds": results["train_seconds"],
        "parameters": published,
        "training_only_parameters": sum(parameter.numel() for parameter in whole.parameters()) - published,
        "device": trainer.args.device.type,
        "threads": torch.get_num_threads(),
        "precision": "bf16" if trainer.args.bf16 else "fp16" if trainer.args.fp16 else "fp32",
    }
