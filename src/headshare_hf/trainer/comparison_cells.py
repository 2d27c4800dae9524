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
        `trained_code`, and the `options` that all of it depends on.

    Raises:
        ValueError: It was finished with other options.
    """
    kept = finished_result(cell, output, judging)
    if kept is not None:
        return kept
    recipe = build_recipe(dict(cell.sections))
    was_finished = run_folder.is_finished(str(recipe.training.output_dir))
    trainer, results = run_recipe(recipe)
    # Before the test images are there.
    cost = {**_cost(trainer, results), "peak_memory_mib": None if was_finished else peak_memory(trainer.args.device)}
    test, _ = read_test_images(recipe, judging.test_split)
    # Weights that are judged again know less of their training than what was written then.
    older: dict[str, Any] = (_read(output, cell) or {}) if was_finished else {"trained_code": judging.code}
    found = {
        "row": cell.row,
        "seed": cell.seed,
        "options": describe_cell(cell, output, judging.test_split, judging.teacher),
        "code": judging.code,
        "trained_code": older.get("trained_code", older.get("code")),
        "data": describe_images(trainer.train_dataset, trainer.eval_dataset, test),
        "last": judge_last(recipe, test, None if cell.row == TEACHER else judging.teacher),
        "best": judge_best(trainer, test),
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
        ValueError: The cell was finished with other options; the first difference is named.
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
    return found


def kept_results(cells: Sequence[Cell], output: Path, judging: Judging) -> dict[str, dict[str, Any]]:
    """
    Of all cells that are finished, what their `cell.json` holds, by their names.

    Raises:
        RunFolderError, ValueError: As [`finished_result`].
    """
    found = {cell.name: finished_result(cell, output, judging) for cell in cells}
    return {name: result for name, result in found.items() if result is not None}


def _read(output: Path, cell: Cell) -> dict[str, Any] | None:
    path = output / cell.name / RESULT_FILE
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise run_folder.RunFolderError(
            f"{path} is damaged ({error}); delete it, and the cell is judged again"
        ) from error


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
