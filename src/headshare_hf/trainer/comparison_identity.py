"""What makes a cell or a comparison another one, and what only says where things lie or how fast they go."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .comparison import Cell, Comparison
from .comparison_checks import TEACHER


# What all rows have in common. Rows may be added, and seeds; anything else makes another comparison.
_COMMON = ("data", "student", "teacher", "training", "teacher_training", "teacher_seed", "test_split")
# Where the images lie, how fast they are read, and what people call them changes no result.
_PLACES = (
    "name",
    "cache_images",
    "image_cache",
    "title",
    "license",
    "weights_license",
    "weights_license_name",
    "weights_license_link",
)
# Folders and machines, and what says how fast a run is or how much of it is shown.
SPEED = (
    "output_dir",
    "use_cpu",
    "teacher_cache",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "dataloader_prefetch_factor",
    "per_device_eval_batch_size",
    "report_to",
    "logging_steps",
    "logging_strategy",
    "disable_tqdm",
)
_LEFT_OUT = {"data": _PLACES, "training": SPEED, "teacher_training": SPEED}
# Fields of a model section that name a folder, which may be the one of another cell.
_FOLDERS = ("name_or_path", "shared_head_from")


def describe_comparison(comparison: Comparison) -> dict[str, Any]:
    """What two comparisons have to agree in, for their results to stand in one table."""
    return without_places({name: getattr(comparison, name) for name in _COMMON})


def describe_cell(cell: Cell, output: Path, test_split: str, teacher: Mapping[str, Any] | None) -> dict[str, Any]:
    """
    What the result of a cell depends on.

    Args:
        cell ([`Cell`]): The cell.
        output (`Path`): Folder of the comparison; what lies in it is named from there.
        test_split (`str`): What it is judged by.
        teacher (`Mapping[str, Any]`, *optional*): Section of the teacher that it is compared with.
    """
    compared = None if cell.row == TEACHER or teacher is None else dict(teacher)
    sections = {**cell.sections, "compared_with": compared, "test_split": test_split}
    return without_places({name: _from(output, content) for name, content in sections.items()})


def check_same_code(what: str, other: str, code: str, accepted: Collection[str]) -> None:
    """
    Args:
        what (`str`): What is of another version, for the message.
        other (`str`): That version.
        code (`str`): The version that goes on with it, or stands beside it.
        accepted (`Collection[str]`): Versions for which somebody vouches.

    Raises:
        ValueError: They differ, and nobody vouches for either.
    """
    if other != code and not {other, code} & set(accepted):
        raise ValueError(
            f"{what} version {other} of the code, and this is {code}. Write to another --output and --results, or vouch with "
            f"`--accept-code {other}` that nothing between them changes a result"
        )


def without_places(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of a recipe or a comparison as JSON has them, without what changes no result."""
    kept = {
        name: {field: value for field, value in content.items() if field not in _LEFT_OUT.get(name, ())}
        if isinstance(content, Mapping)
        else content
        for name, content in sections.items()
    }
    return json.loads(json.dumps(kept))


def _from(output: Path, section: Any) -> Any:
    if not isinstance(section, Mapping):
        return section
    inside = {
        name: Path(section[name]).relative_to(output).as_posix()
        for name in _FOLDERS
        if section.get(name) is not None and Path(section[name]).is_relative_to(output)
    }
    return {**section, **inside}
