"""A comparison of methods: one file says networks, images, schedule, methods and seeds, and this is what it means."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .checks import check_precision
from .comparison_checks import (
    AROUND,
    OTHER_ROWS,
    ROW_FIELDS,
    TEACHER,
    TEACHER_OPTIONS,
    check_content,
    check_names,
    field_names,
    nearest,
)
from .config_checks import unread_options
from .recipe_arguments import build_recipe, build_section, read_recipe


# The last student of SH-KD is a new one: with the seed of the temporary student it would start as that did.
_NEW_STUDENT = 10_000


@dataclass(frozen=True)
class Cell:
    """
    One training: a row of the table and a seed.

    Attributes:
        row (`str`): Name of the row, or `"teacher"`.
        seed (`int`): Of the training.
        sections (`Mapping[str, dict]`): Of its recipe, see [`build_recipe`].
        needs (`tuple[str, ...]`): Names of the cells whose networks it takes.
    """

    row: str
    seed: int
    sections: Mapping[str, dict[str, Any]]
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its folder."""
        return cell_name(self.row, self.seed)


def cell_name(row: str, seed: int) -> str:
    """Folder of a cell below that of the comparison."""
    return f"{row}/seed_{seed}"


@dataclass
class Comparison:
    """
    What a comparison file says.

    Attributes:
        data (`dict`): Section `data` of a recipe. Its evaluation images choose the best epoch.
        student (`dict`): Section `student` of a recipe, a new network.
        teacher (`dict`): Likewise, trained once from `teacher_seed`; or `name_or_path` of trained weights.
        training (`dict`): Section `training`, common to all rows.
        methods (`dict[str, dict]`):
            By the name of its row, the fields of section `training` that make the method: `method` itself and its
            weights. Also `student`, fields that replace those of the common section; and for SH-KD
            `temporary_student`, the row whose student of the same seed is the temporary one. The teacher around its head
            is a cell of its own, which several rows share. Or `taught_by`, the row whose student of the same seed is the
            teacher in place of the common one.
        baseline (`str`): The row that others are compared with.
        seeds (`list[int]`): Of the students. Rows share their data order seed by seed.
        test_split (`str`): Split that is reported and chooses nothing.
        teacher_training (`dict`): Replaces fields of `training` for teachers.
        teacher_seed (`int`): Of the teacher.
        title (`str`, *optional*): For people.
        published (`dict[str, Any]`): By row, or `teacher`, test accuracies in per cent of somebody else, shown beside
            these: a number, or `{value: ..., source: ...}` where the source is another one.
        published_source (`str`, *optional*): Whose the plain numbers are.

    Raises:
        ValueError: A row or field is unknown, has a value of another kind or contradicts another one, or the test images
            would choose something.
    """

    data: dict[str, Any]
    student: dict[str, Any]
    teacher: dict[str, Any]
    training: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    baseline: str
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    test_split: str = "test"
    teacher_training: dict[str, Any] = field(default_factory=dict)
    teacher_seed: int = 0
    title: str | None = None
    published: dict[str, Any] = field(default_factory=dict)
    published_source: str | None = None

    def __post_init__(self) -> None:
        check_content(self)
        if not torch.accelerator.is_available():
            # `bf16` is refused on a CPU unless the CPU was asked for, and here is nothing else to ask for.
            self.training = {**self.training, "use_cpu": True}

    def check_rows(self, rows: Iterable[str]) -> None:
        """
        Raises:
            ValueError: There is no such row; the nearest is named.
        """
        for row in rows:
            if row not in self.methods:
                raise ValueError(f"there is no row {row!r}{nearest(row, self.methods)}")

    def published_numbers(self) -> dict[str, Any]:
        """`published` as results hold it: the common `source`, `values` in per cent, and `sources` of single rows."""
        own = {row: found for row, found in self.published.items() if isinstance(found, dict)}
        values = {row: own[row]["value"] if row in own else found for row, found in self.published.items()}
        return {
            "source": self.published_source,
            "values": values,
            "sources": {row: found["source"] for row, found in own.items()},
        }

    def cells(self, output: Path, rows: Sequence[str] | None = None, seeds: Sequence[int] | None = None) -> list[Cell]:
        """
        All trainings, those that others need before them.

        Args:
            output (`Path`): Folder of the comparison.
            rows (`Sequence[str]`, *optional*): These rows, and what they need. Default: all.
            seeds (`Sequence[int]`, *optional*): These seeds only. Default: all.

        Raises:
            ValueError: There is no such row, or a row needs itself.
        """
        found: dict[str, Cell] = {}
        self.check_rows(rows or ())
        for seed in seeds if seeds is not None else self.seeds:
            for row in rows or self.methods:
                self._add(row, seed, output, found, ())
        return list(found.values())

    def _add(self, row: str, seed: int, output: Path, found: dict[str, Cell], above: tuple[str, ...]) -> Cell:
        if row in above:
            raise ValueError(
                f"rows {' -> '.join([*above, row])} need each other as `temporary_student` or `taught_by`"
            )
        try:
            cell = self._make(row, seed, output)
        except ValueError as error:
            raise ValueError(f"row {row!r}: {error}") from error
        for needed in cell.needs:
            name, _, number = needed.rpartition("/seed_")
            self._add(name, int(number), output, found, (*above, row))
        return found.setdefault(cell.name, cell)

    @property
    def teacher_name(self) -> str | None:
        """The cell of the teacher, or `None` where its weights are given."""
        given = self.teacher.get("name_or_path") is not None
        return None if given else cell_name(TEACHER, self.teacher_seed)

    def teacher_section(self, output: Path) -> dict[str, Any]:
        """
        Section `teacher` of a recipe that asks the ordinary teacher.

        Args:
            output (`Path`): Folder of the comparison.
        """
        if self.teacher_name is None:
            return dict(self.teacher)
        return {"name_or_path": str(output / self.teacher_name)}

    def _make(self, row: str, seed: int, output: Path) -> Cell:
        if row == TEACHER:
            return self._teacher_cell(row, self.teacher_seed, {}, output)
        if row.startswith(AROUND):
            temporary = cell_name(row.removeprefix(AROUND), seed)
            return self._teacher_cell(row, seed, {"shared_head_from": str(output / temporary)}, output, (temporary,))
        return self._student_cell(row, seed, output)

    def _teacher_cell(
        self, row: str, seed: int, head: dict[str, Any], output: Path, needs: tuple[str, ...] = ()
    ) -> Cell:
        training = {**self.training, **self.teacher_training, "method": "plain"}
        # It asks no teacher about anything.
        training = {name: value for name, value in training.items() if name not in TEACHER_OPTIONS}
        return self._finished(row, seed, {"student": {**self.teacher, **head}}, training, output, needs)

    def _student_cell(self, row: str, seed: int, output: Path) -> Cell:
        content = self.methods[row]
        options = {name: value for name, value in content.items() if name not in ROW_FIELDS}
        sections: dict[str, dict[str, Any]] = {"student": {**self.student, **content.get("student", {})}}
        # Also where it teaches nothing: every student is compared with it.
        needs = () if self.teacher_name is None else (self.teacher_name,)
        asks, unread = self._probe(options)
        # What is common to all rows is dropped where a row has no use for it; what it sets itself is refused.
        options = {**dict.fromkeys(unread), **options}
        own = _own_teacher(content)
        if own is not None:
            needs = (*needs, cell_name(own, seed))
            sections["teacher"] = {"name_or_path": str(output / cell_name(own, seed))}
            if not asks:
                named = next(f"{name}: {content[name]}" for name in OTHER_ROWS if content.get(name) is not None)
                raise ValueError(f"it asks no teacher about anything; leave out `{named}`")
            if content.get("temporary_student") is not None:
                sections["student"]["init_seed"] = seed + _NEW_STUDENT
        elif asks:
            sections["teacher"] = self.teacher_section(output)
        return self._finished(row, seed, sections, {**self.training, **options}, output, needs)

    def _finished(
        self,
        row: str,
        seed: int,
        sections: dict[str, dict[str, Any]],
        training: dict[str, Any],
        output: Path,
        needs: tuple[str, ...] = (),
    ) -> Cell:
        kept = {"report_to": "none"} | {name: value for name, value in training.items() if value is not None}
        own = {
            "output_dir": str(output / cell_name(row, seed)),
            "seed": seed,
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            # The last one and the best one.
            "save_total_limit": 2,
            "metric_for_best_model": "accuracy",
        }
        return Cell(row, seed, {**sections, "data": self.data, "training": {**kept, **own}}, needs)

    def _probe(self, options: dict[str, Any]) -> tuple[bool, tuple[str, ...]]:
        """Whether a row asks a teacher, and the names of those common options that it has no use for."""
        # Neither depends on these, and some of them need each other.
        asked = {name: value for name, value in {**self.training, **options}.items() if name not in TEACHER_OPTIONS}
        args = build_section("training", {"output_dir": "unused", **asked})
        asks = args.needs_teacher or args.student_head != "own"
        return asks, tuple(unread_options(args.loss_weights)) if asks else TEACHER_OPTIONS


def _own_teacher(content: Mapping[str, Any]) -> str | None:
    """Row of the teacher that a row has for itself."""
    temporary = content.get("temporary_student")
    return content.get("taught_by") if temporary is None else AROUND + temporary


def read_comparison(path: Path, overrides: Mapping[tuple[str, str], Any] | None = None) -> Comparison:
    """
    Reads a comparison file.

    Args:
        path (`Path`): YAML or JSON; it may name another one under `extends`.
        overrides (`Mapping[tuple[str, str], Any]`, *optional*): Values of single fields by section and name.

    Raises:
        ValueError: Names the file, section or field that is wrong, and the nearest right name.
    """
    content = read_recipe(path)
    for (section, name), value in (overrides or {}).items():
        if not isinstance(content.setdefault(section, {}), dict):
            raise ValueError(f"`{section}` is {content[section]!r}, which has no field {name!r} to replace")
        content[section][name] = value
    check_names(str(path), content, field_names(Comparison))
    missing = [
        name for name in ("data", "student", "teacher", "training", "methods", "baseline") if name not in content
    ]
    if missing:
        raise ValueError(f"{path} has no `{missing[0]}`, which a comparison needs")
    return Comparison(**content)


def check_recipes(cells: Sequence[Cell]) -> None:
    """
    Builds every recipe before any training, so that a wrong value in the last row does not show after hours.

    Warns where bfloat16 is imitated: what the cells themselves say is in their logs.

    Raises:
        ValueError: As [`build_recipe`], with the name of the row.
    """
    trainings = []
    for cell in cells:
        try:
            trainings.append(build_recipe(dict(cell.sections)).training)
        except (ValueError, TypeError) as error:
            raise ValueError(f"row {cell.row!r}: {error}") from error
    for training in [found for found in trainings if found.bf16][:1]:
        check_precision(training)
