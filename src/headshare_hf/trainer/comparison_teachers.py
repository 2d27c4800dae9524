"""The teachers of a comparison: what it costs them to be trained around the head of a student."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from ..evaluation import compare_paired
from .comparison_checks import AROUND, ROW_FIELDS, TEACHER, TEACHER_OPTIONS
from .comparison_identity import SPEED
from .comparison_values import (
    difference_columns,
    difference_legend,
    markdown,
    means,
    published_column,
    student_rows,
    values_of,
)


def render_teachers(content: Mapping[str, Any]) -> str:
    """
    The table of teachers, in Markdown, with a legend: the ordinary one, those that were trained around the head of a
    student, rows that are such a teacher trained alone, and rows that teach another one. Differences are from the first
    that was trained alone, or else from the one ordinary teacher. Empty where no teacher was measured.

    Args:
        content (`Mapping[str, Any]`): What the JSON file of [`ComparisonResults`] holds.
    """
    alone = teachers_alone(content)
    around = {row: found["seeds"] for row, found in content["cells"].items() if row.startswith(AROUND)}
    students = student_rows(content)
    teaching = _teaching(content)
    known = values_of({**{row: students[row] for row in [*alone, *teaching]}, **around})
    ordinary = _ordinary_accuracy(content)
    shown = {**({TEACHER: ordinary} if ordinary else {}), **known}
    if not shown:
        return ""
    baseline = next((row for row in alone if row in known), TEACHER)
    compared = _with_baseline(known, baseline, ordinary)
    differences = compare_paired(compared, baseline) if len(compared) > 1 and baseline in compared else {}
    columns = {
        "teacher": {row: row for row in shown},
        "seeds": {row: str(len(found)) for row, found in shown.items()},
        "test accuracy, % (mean ± standard deviation)": means(shown),
        **difference_columns(baseline, differences),
        "seconds": _seconds(content, list(shown)),
        **published_column(content, [TEACHER]),
    }
    return f"{markdown(columns, list(shown))}\n\n{_legend(baseline, differences)}"


def teachers_alone(content: Mapping[str, Any]) -> list[str]:
    """Rows of students that are the teacher's network, trained on labels alone exactly as the teacher was."""
    common = content["comparison"]
    no_teacher = (*TEACHER_OPTIONS, *SPEED)
    wanted = _given(common["teacher"]), _given({**common["training"], **common["teacher_training"]}, *no_teacher)
    found = []
    for row in student_rows(content):
        options = content["cells"][row]["options"]
        network = _given({**common["student"], **options.get("student", {})})
        training = _given({**common["training"], **options}, *no_teacher, *ROW_FIELDS, "method")
        if options.get("method", "plain") == "plain" and any(wanted[0]) and (network, training) == wanted:
            found.append(row)
    return found


def _given(section: Mapping[str, Any], *but: str) -> dict[str, Any]:
    """Fields of a section, as far as they are set."""
    return {name: value for name, value in section.items() if value is not None and name not in but}


def _teaching(content: Mapping[str, Any]) -> list[str]:
    """Rows that teach another one, also one that is not shown."""
    taught = {found["options"].get("taught_by") for found in content["cells"].values()}
    return [row for row in student_rows(content) if row in taught]


def teacher_rows(content: Mapping[str, Any]) -> list[str]:
    """Rows of another network than the students': the teacher trained alone, and what teaches other rows. They are no rivals."""
    students, common = student_rows(content), content["comparison"]["student"]
    options = {row: content["cells"][row]["options"] for row in students}
    teaching = {*_teaching(content), *teachers_alone(content)}
    networks = {row: _network({**common, **options[row].get("student", {})}) for row in students}
    return [row for row in students if row in teaching and networks[row] != _network(common)]


def rival_rows(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Cells of every row that competes, by their seed: all but the [`teacher_rows`], and the baseline, whatever it is."""
    others = set(teacher_rows(content)) - {content["baseline"]}
    return {row: cells for row, cells in student_rows(content).items() if row not in others}


def _network(section: Mapping[str, Any]) -> list[Any]:
    return [section.get(name) for name in ("name_or_path", "backbone", "backbone_kwargs")]


def _ordinary_accuracy(content: Mapping[str, Any]) -> dict[int, float]:
    """Of the ordinary teacher by its seed; where its weights were given, as the first student was compared with it."""
    if TEACHER in content["cells"]:
        return values_of({TEACHER: content["cells"][TEACHER]["seeds"]})[TEACHER]
    seen = next(iter(values_of(student_rows(content), "teacher_accuracy").values()), {})
    return {0: next(iter(seen.values()))} if seen else {}


def _with_baseline(
    known: Mapping[str, Mapping[int, float]], baseline: str, ordinary: Mapping[int, float]
) -> dict[str, Mapping[int, float]]:
    if baseline != TEACHER or not ordinary:
        return dict(known)
    # All seeds have the same one.
    seeds = {seed for found in known.values() for seed in found}
    return {TEACHER: dict.fromkeys(seeds or ordinary, fmean(ordinary.values())), **known}


def _seconds(content: Mapping[str, Any], rows: list[str]) -> dict[str, str]:
    cells = {row: content["cells"][row]["seeds"].values() for row in rows if row in content["cells"]}
    return {row: f"{fmean(cell['cost']['train_seconds'] for cell in found):.0f}" for row, found in cells.items()}


def _legend(baseline: str, differences: Mapping[str, Any]) -> str:
    parts = ["±: standard deviation over the seeds."]
    if differences:
        parts.append(difference_legend(baseline, differences))
    if differences and baseline == TEACHER:
        parts.append("There is one ordinary teacher, so that these intervals lack its variation.")
    return " ".join([*parts, "Seconds: of the training of the teacher alone."])
