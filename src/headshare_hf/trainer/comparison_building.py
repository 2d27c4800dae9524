"""What would show only when a row begins, shown before the first training: networks and losses that do not fit."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .comparison import Cell
from .recipe import RecipeData, build_data, build_model, build_teacher
from .recipe_arguments import build_recipe, build_section
from .recipe_sections import ModelArguments, Recipe
from .trainer import DistillationTrainer


# What says how fast a training is, and needs a device or warns of this one when a trainer is built.
_FAST = (
    "torch_compile",
    "bf16",
    "bf16_full_eval",
    "fp16",
    "fp16_full_eval",
    "teacher_precision",
    "large_head_kernel",
)


def check_buildable(cells: Sequence[Cell], known: Mapping[str, Cell], output: Path) -> None:
    """
    Builds the trainer of every row once, with the networks as they are before any training, on the CPU: whether widths,
    feature maps, numbers of negatives and options fit together is known from the networks and the images alone.

    Args:
        cells (`Sequence[Cell]`): What is about to be trained; of every row the first one is built.
        known (`Mapping[str, Cell]`): All cells by name, those that are finished too: they say what teachers are.
        output (`Path`): Folder of the comparison.

    Raises:
        ValueError: Names every row that could not begin, and why.
    """
    first: dict[str, Cell] = {}
    for cell in cells:
        first.setdefault(cell.row, cell)
    data, wrong = None, []
    for cell in first.values():
        try:
            with tempfile.TemporaryDirectory() as folder:
                recipe = _untrained(cell, folder)
                data = data or build_data(recipe.data, cell.seed)
                head = cell.sections["student"].get("shared_head_from")
                _build(recipe, data, _network_of_teacher(cell, known, output), _trained_here(head, known, output))
        except (ValueError, TypeError) as error:
            wrong.append(f"row {cell.row!r}: {error}")
    if wrong:
        raise ValueError("\n".join(wrong))


def _untrained(cell: Cell, folder: str) -> Recipe:
    training = {name: value for name, value in cell.sections["training"].items() if name not in _FAST}
    here = {**training, "output_dir": folder, "use_cpu": True, "report_to": "none", "push_to_hub": False}
    student = {**cell.sections["student"], "shared_head_from": None}
    return build_recipe({**cell.sections, "training": here, "student": student})


def _network_of_teacher(cell: Cell, known: Mapping[str, Cell], output: Path) -> ModelArguments | None:
    """The section of a row's teacher, as a new network where it is one that the comparison trains."""
    teacher = cell.sections.get("teacher")
    if teacher is None:
        return None
    return _trained_here(teacher["name_or_path"], known, output) or build_section("teacher", dict(teacher))


def _trained_here(folder: Any, known: Mapping[str, Cell], output: Path) -> ModelArguments | None:
    """The network of the cell in a folder; `None` where the folder is of no cell."""
    cell = {str(output / name): other for name, other in known.items()}.get(str(folder))
    return None if cell is None else build_section("student", {**cell.sections["student"], "shared_head_from": None})


def _build(recipe: Recipe, data: RecipeData, teacher: ModelArguments | None, temporary: ModelArguments | None) -> None:
    args: Any = recipe.training
    student = build_model(recipe.student, recipe.data, data.label_names, args.seed)
    network, processor = None, None
    if teacher is not None and teacher.name_or_path is not None:
        network, processor = build_teacher(teacher, data.label_names)
    elif teacher is not None:
        network = build_model(teacher, recipe.data, data.label_names, args.seed)
    shared = None if temporary is None else build_model(temporary, recipe.data, data.label_names, args.seed)
    DistillationTrainer(
        student,
        args,
        teacher=network,
        teacher_processing_class=processor,
        shared_head_from=shared,
        **data.for_trainer(),
    )
