"""One cell of a comparison: trained, or gone on with, and then judged on images that chose nothing."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from safetensors.torch import load_file

from .. import __version__
from . import run_folder
from .comparison import Cell
from .comparison_checks import TEACHER
from .comparison_identity import check_same_code, describe_cell, without_places
from .comparison_judging import describe_images, judge_best, judge_last, last_state, read_test_images
from .pretraining import PRETRAINING
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
        accepted_code (`frozenset[str]`): Versions for whose results somebody vouches.
    """

    test_split: str
    teacher: Mapping[str, Any] | None
    code: str
    accepted_code: frozenset[str] = frozenset()


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
        `versions` of the libraries, `trained_code`, `teacher_digest` of the ordinary teacher, the `options` that all of it
        depends on, and `networks`, see [`networks_of`].

    Raises:
        ValueError: It was finished with other options or beside other weights, or another version of the code, for which
            nobody vouches, has begun it.
    """
    kept = finished_result(cell, output, judging)
    if kept is not None:
        return kept
    recipe = build_recipe(dict(cell.sections))
    was_finished = run_folder.is_finished(str(recipe.training.output_dir))
    begun, networks = _begin(cell, output, judging), networks_of(cell, output, judging)
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
        "networks": networks,
        "teacher_digest": _ordinary_teacher(judging),
        "code": judging.code,
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, datasets)},
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
        ValueError: The cell was finished with other options, or beside other weights; the first difference is named.
    """
    found = _read(output, cell)
    if found is None or "options" not in found:
        return None
    here = describe_cell(cell, output, judging.test_split, judging.teacher)
    # Older files have more of what changes no result.
    difference = run_folder.first_difference(without_places(found["options"]), here)
    if difference is not None:
        raise ValueError(
            f"{output / cell.name} was finished with other options: {difference}. Give another --output, give the row "
            "another name, or move that folder away, and the cell is trained again"
        )
    present = networks_of(cell, output, judging)
    other = [name for name, digest in found.get("networks", {}).items() if present.get(name, digest) != digest]
    if other:
        raise ValueError(
            f"{output / cell.name} was finished beside other weights than {other[0]} has now: that was trained anew since. "
            f"If it was taught by these, move {output / cell.name} away, and it is trained again; if it was only compared with "
            f"them, delete its {RESULT_FILE}, and it is judged again"
        )
    return found


def networks_of(cell: Cell, output: Path, judging: Judging) -> dict[str, str]:
    """
    Digests of the weights that a cell is taught by or compared with, by the names of their cells; `teacher` is a folder
    that was given. Not of a network that is still trained, nor of one on the Hub, whose `revision` is an option.
    """
    folders = {name: output / name for name in cell.needs}
    finished = {name: folder for name, folder in folders.items() if run_folder.is_finished(folder)}
    given = Path((judging.teacher or {}).get("name_or_path", ""))
    if cell.row != TEACHER and judging.teacher is not None and given.is_dir():
        inside = given.is_relative_to(output)
        if not inside or run_folder.is_finished(given):
            finished[given.relative_to(output).as_posix() if inside else TEACHER] = given
    digests = {name: _digest_of(folder) for name, folder in finished.items()}
    return {name: digest for name, digest in digests.items() if digest is not None}


def _ordinary_teacher(judging: Judging) -> str | None:
    """Digest of the teacher that all students are compared with, also of its own cell, which has just been trained."""
    return None if judging.teacher is None else _digest_of(Path(judging.teacher["name_or_path"]))


def _digest_of(folder: Path) -> str | None:
    """Of the weights in a folder; somebody who needs the room may have deleted them, and a name on the Hub is no folder."""
    paths = sorted(folder.glob("*.safetensors"))
    return _digest(tuple(map(_state, paths))) if paths else None


def _state(path: Path) -> tuple[Path, int, int]:
    return path, path.stat().st_mtime_ns, path.stat().st_size


@cache
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Once for each state of the files: every cell asks about the same teacher."""
    return run_folder.weights_digest({name: tensor for path, *_ in files for name, tensor in load_file(path).items()})


def begun_by(cells: Sequence[Cell], output: Path) -> dict[str, str]:
    """Versions of the code that began to train cells, by the names of these, where that is known."""
    found = {cell.name: _begun(output / cell.name) for cell in cells}
    return {name: code for name, code in found.items() if code is not None}


def _begun(folder: Path) -> str | None:
    if not (folder / BEGUN_FILE).is_file() or not _has_checkpoint(folder):
        return None
    return _read_json(folder / BEGUN_FILE, "move the folder away, and the cell is trained again")["code"]


def _has_checkpoint(folder: Path) -> bool:
    """Whether there is anything that another version of the code could go on with, of a stage before the training too."""
    stages = (folder, folder / PRETRAINING)
    return any(run_folder.is_finished(stage) or run_folder.last_checkpoint(stage) is not None for stage in stages)


def _begin(cell: Cell, output: Path, judging: Judging) -> str | None:
    """Whose code begins the training, or began it; asked here too, for another command may have done so just now."""
    folder = output / cell.name
    if not _has_checkpoint(folder):
        run_folder.write_json(folder / BEGUN_FILE, {"code": judging.code})
        return judging.code
    begun = _begun(folder)
    if begun is not None:
        check_same_code(f"the training of cell {cell.name} was begun by", begun, judging.code, judging.accepted_code)
    return begun


def finished_results(cells: Sequence[Cell], output: Path, judging: Judging) -> dict[str, dict[str, Any]]:
    """
    Of all cells that are finished, what their `cell.json` holds, by their names.

    Raises:
        RunFolderError, ValueError: As [`finished_result`].
    """
    found = {cell.name: finished_result(cell, output, judging) for cell in cells}
    return {name: result for name, result in found.items() if result is not None}


def kept_results(cells: Sequence[Cell], output: Path, judging: Judging) -> dict[str, dict[str, Any]]:
    """
    [`finished_results`] without those of cells that need another one which is not finished: only when that is there, it can
    be said whether it is still the same.

    Args:
        cells (`Sequence[Cell]`): Those that others need come first.
        output (`Path`): Folder of the comparison.
        judging ([`Judging`]): How they are judged.
    """
    found, kept = finished_results(cells, output, judging), dict[str, dict[str, Any]]()
    for cell in cells:
        if cell.name in found and kept.keys() >= set(cell.needs):
            kept[cell.name] = found[cell.name]
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
