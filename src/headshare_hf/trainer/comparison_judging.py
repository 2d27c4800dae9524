"""What is measured of the network of a cell, on images that chose nothing."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..data import ImageClassificationDataset
from ..evaluation import analyze_student
from ..evaluation.analysis import check_comparable
from . import run_folder
from .comparison import Cell
from .config import DistillationConfig
from .identity import label_digest
from .loading import load_teacher
from .methods import get_method
from .recipe import build_data, build_model, build_teacher
from .recipe_arguments import build_recipe, build_section
from .recipe_sections import Recipe
from .trainer import DistillationTrainer


# Images of a split whose pixels tell it from another one with the same classes in the same order.
_LOOKED_AT = 32
# Share of the teacher's head in the mixed prediction of rows that say none.
_ALPHA_TH = 0.5


def check_judging(cell: Cell, test_split: str, teacher: Mapping[str, Any] | None) -> dict[str, Any]:
    """
    Refuses before any training what could not be judged after it.

    Args:
        cell ([`Cell`]): Of a student.
        test_split (`str`): What is reported.
        teacher (`Mapping[str, Any]`, *optional*): Section of weights that are trained already.

    Returns:
        `dict[str, Any]`: What [`describe_images`] says, for [`ComparisonResults.check_images`].

    Raises:
        ValueError: There are no such test images, they have other classes than the training images, or the teacher cannot
            be compared with students.
    """
    recipe = build_recipe(dict(cell.sections))
    test, processor = read_test_images(recipe, test_split)
    if teacher is not None:
        _check_teacher(recipe, test, processor, teacher)
    data = build_data(recipe.data, cell.seed)
    return describe_images(data.train, data.evaluation, test)


def _check_teacher(
    recipe: Recipe, test: ImageClassificationDataset, processor: Any, teacher: Mapping[str, Any]
) -> None:
    student = build_model(recipe.student, recipe.data, test.label_names, recipe.training.seed)
    other, other_processor = build_teacher(build_section("teacher", dict(teacher)), test.label_names)
    try:
        check_comparable(student, other, test, processor, other_processor)
    except ValueError as error:
        raise ValueError(f"students cannot be compared with {teacher['name_or_path']}: {error}") from error


def read_test_images(recipe: Recipe, test_split: str) -> tuple[ImageClassificationDataset, Any]:
    """
    The images that are reported, and the image processor that prepares them.

    Raises:
        ValueError: There is no such split, or it has other classes than the training images.
    """
    sections = replace(recipe.data, eval_split=test_split, validation_fraction=0.0, max_eval_samples=None)
    data = build_data(sections, recipe.training.seed)
    assert data.evaluation is not None
    return data.evaluation, data.processor


def judge_last(recipe: Recipe, test: ImageClassificationDataset, teacher: Mapping[str, Any] | None) -> dict[str, Any]:
    """
    [`analyze_student`] of the weights of the last epoch, and as `own_teacher` beside the teacher of the recipe where
    that is another one.
    """
    folder, options = str(recipe.training.output_dir), _options(recipe.training)
    found = _analyze(folder, teacher, test, **options)
    own = recipe.teacher
    if own is None or (teacher is not None and own.name_or_path == teacher["name_or_path"]):
        return found
    return {**found, "own_teacher": _analyze(folder, {"name_or_path": own.name_or_path}, test, **options)}


def judge_best(
    trainer: DistillationTrainer, test: ImageClassificationDataset, last: Mapping[str, Any]
) -> dict[str, Any] | None:
    """
    Accuracies of the weights of the epoch with the best validation accuracy, and that; `None` without one. Where that is
    the last epoch, they are those of `last`, see [`judge_last`].
    """
    state = last_state(trainer.folder)
    best = state.get("best_model_checkpoint")
    if best is None:
        return None
    # By its name, because the folder may have moved since.
    folder = trainer.folder / Path(best).name
    if not folder.is_dir():
        raise run_folder.RunFolderError(
            f"{folder}, the best epoch, is gone; move {trainer.folder} away, and the cell is trained again"
        )
    step = int(folder.name.rpartition("-")[2])
    scored = last if step == state["global_step"] else _analyze(str(folder), None, test, **_options(trainer.args))
    return {
        "epoch": next(row["epoch"] for row in state["log_history"] if row["step"] == step and "eval_accuracy" in row),
        "validation_accuracy": state["best_metric"],
        **{name: scored[name] for name in ("accuracy", "mean_per_class_accuracy")},
    }


def last_state(folder: Path) -> dict[str, Any]:
    """What the newest checkpoint in a folder knows of the training so far."""
    checkpoint = run_folder.last_checkpoint(folder)
    if checkpoint is None:
        return {}
    return json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))


def describe_images(train: Any, validation: Any, test: ImageClassificationDataset) -> dict[str, Any]:
    """What other images would change, whatever folder they are in."""
    splits: dict[str, Any] = {"train": train, "validation": validation, "test": test}
    return {
        "images": {name: len(split) for name, split in splits.items()},
        "labels": {name: label_digest(split) for name, split in splits.items()},
        "pixels": {name: _pixel_digest(split) for name, split in splits.items()},
        # By number, so that a difference is one name.
        "label_names": {str(index): name for index, name in enumerate(test.label_names)},
        "classes": len(test.label_names),
        "size": list(test[0]["pixel_values"].shape),
    }


def _pixel_digest(images: ImageClassificationDataset) -> str:
    rows = torch.linspace(0, len(images) - 1, min(_LOOKED_AT, len(images))).long().tolist()
    return run_folder.weights_digest({"pixels": images.unaugmented(rows)})


def _alpha_th(training: DistillationConfig) -> float:
    if training.alpha_th is not None:
        return training.alpha_th
    own = None if training.has_teacher_head_weights else get_method(training.method or "plain").alpha_th
    return _ALPHA_TH if own is None else own


def _options(training: DistillationConfig) -> dict[str, Any]:
    options = {"alpha_th": _alpha_th(training), "batch_size": training.per_device_eval_batch_size}
    return {**options, "device": training.device}


def _analyze(
    student: str,
    teacher: Mapping[str, Any] | None,
    test: ImageClassificationDataset,
    device: torch.device,
    **options: Any,
) -> dict[str, Any]:
    network, processor = load_teacher(student)
    if teacher is None:
        return analyze_student(network.to(device), None, test, processor=processor, **options)
    other, other_processor = build_teacher(build_section("teacher", dict(teacher)), test.label_names)
    processors = {"processor": processor, "teacher_processor": other_processor}
    return analyze_student(network.to(device), other.to(device), test, **processors, **options)
