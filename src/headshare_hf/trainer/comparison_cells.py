"""One cell of a comparison: trained, or gone on with, and then judged on images that chose nothing."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..data import ImageClassificationDataset
from ..evaluation import analyze_student
from . import run_folder
from .comparison import TEACHER, Cell
from .identity import label_digest
from .loading import load_teacher
from .recipe import build_data, run_recipe
from .recipe_arguments import build_recipe
from .recipe_sections import Recipe
from .trainer import DistillationTrainer


RESULT_FILE = "cell.json"
_MIB = 2**20


@cache
def code_version() -> str:
    """Version of this package and a digest over the sources that training and its results depend on."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for part in ("data", "models", "losses", "trainer", "evaluation"):
        for path in sorted((package / part).rglob("*.py")):
            digest.update(path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"


def run_cell(cell: Cell, output: Path, test_split: str, teacher: str | None) -> dict[str, Any]:
    """
    Brings a cell to its end, whatever there is of it already.

    Args:
        cell ([`Cell`]): What is trained. The cells that it needs are finished.
        output (`Path`): Folder of the comparison.
        test_split (`str`): What is reported.
        teacher (`str`, *optional*): Trained weights that every student is compared with.

    Returns:
        `dict[str, Any]`: What its `cell.json` holds: `last` and `best`, measured on the test images with the weights of
        the last epoch and of the one with the best validation accuracy; `cost`, `curve`, `data` and `code`.
    """
    kept = finished_result(output, cell)
    if kept is not None:
        return kept
    recipe = build_recipe(dict(cell.sections))
    was_finished = run_folder.is_finished(str(recipe.training.output_dir))
    trainer, results = run_recipe(recipe)
    # Before the test images are there.
    memory = None if was_finished else peak_memory(trainer.args.device)
    test = _test_images(recipe, test_split)
    found = {
        "row": cell.row,
        "seed": cell.seed,
        "code": code_version(),
        "data": _describe_data(trainer, test),
        "last": _judge(recipe, test, None if cell.row == TEACHER else teacher),
        "best": _judge_best(trainer, test),
        "curve": _curve(trainer.folder),
        "cost": {**_cost(trainer, results), "peak_memory_mib": memory},
    }
    run_folder.write_json(output / cell.name / RESULT_FILE, found)
    return found


def finished_result(output: Path, cell: Cell) -> dict[str, Any] | None:
    """
    What `cell.json` of a finished cell holds, or `None`.

    Raises:
        RunFolderError: The file is damaged.
    """
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


def _test_images(recipe: Recipe, test_split: str) -> ImageClassificationDataset:
    sections = replace(recipe.data, eval_split=test_split, validation_fraction=0.0, max_eval_samples=None)
    data = build_data(sections, recipe.training.seed)
    if data.evaluation is None or data.evaluation.label_names != data.label_names:
        raise ValueError(
            f"split {test_split!r} of {recipe.data.name} has other classes than those that are trained on"
        )
    return data.evaluation


def _judge(recipe: Recipe, test: ImageClassificationDataset, teacher: str | None) -> dict[str, Any]:
    folder = str(recipe.training.output_dir)
    found = _analyze(folder, teacher, test)
    own = None if recipe.teacher is None else recipe.teacher.name_or_path
    if own is None or own == teacher:
        return found
    return {**found, "own_teacher": _analyze(folder, own, test)}


def _judge_best(trainer: DistillationTrainer, test: ImageClassificationDataset) -> dict[str, Any] | None:
    state = _last_state(trainer.folder)
    best = state.get("best_model_checkpoint")
    if best is None:
        return None
    # By its name, because the folder may have moved since.
    folder = trainer.folder / Path(best).name
    scored = _analyze(str(folder), None, test)
    step = int(folder.name.rpartition("-")[2])
    return {
        "epoch": next(row["epoch"] for row in state["log_history"] if row["step"] == step and "eval_accuracy" in row),
        "validation_accuracy": state["best_metric"],
        **{name: scored[name] for name in ("accuracy", "mean_per_class_accuracy")},
    }


def _analyze(student: str, teacher: str | None, test: ImageClassificationDataset) -> dict[str, Any]:
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    network, processor = load_teacher(student)
    if teacher is None:
        return analyze_student(network.to(device), None, test, processor=processor)
    other, other_processor = load_teacher(teacher)
    both: dict[str, Any] = {"processor": processor, "teacher_processor": other_processor}
    return analyze_student(network.to(device), other.to(device), test, **both)


def _last_state(folder: Path) -> dict[str, Any]:
    checkpoint = run_folder.last_checkpoint(folder)
    if checkpoint is None:
        return {}
    return json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))


def _curve(folder: Path) -> list[tuple[float, float]]:
    history = _last_state(folder).get("log_history", [])
    return [(row["epoch"], row["eval_accuracy"]) for row in history if "eval_accuracy" in row]


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


def _describe_data(trainer: DistillationTrainer, test: ImageClassificationDataset) -> dict[str, Any]:
    """What other images would change, whatever folder they are in."""
    splits: dict[str, Any] = {"train": trainer.train_dataset, "validation": trainer.eval_dataset, "test": test}
    return {
        "images": {name: len(split) for name, split in splits.items()},
        "labels": {name: label_digest(split) for name, split in splits.items()},
        "classes": len(test.label_names),
        "size": list(test[0]["pixel_values"].shape) if hasattr(test, "__getitem__") else None,
    }
