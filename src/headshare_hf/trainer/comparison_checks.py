"""Names in a comparison file, and what is said about wrong ones."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from .config import DistillationConfig
from .recipe_arguments import build_section
from .recipe_sections import DataArguments, ModelArguments


TEACHER = "teacher"
# Rows of teachers that were trained around the frozen head of another row's student.
AROUND = "teacher_around_"
# Fields of a row that name another one, whose network it takes.
OTHER_ROWS = ("temporary_student", "taught_by")
# Of a row, beside the fields of section `training`.
ROW_FIELDS = ("student", *OTHER_ROWS)
# Common options that a row without a teacher has no use for, and would refuse; with one, it may still not read some.
TEACHER_OPTIONS = (
    "teacher_cache",
    "teacher_cache_dtype",
    "teacher_cache_moments",
    "teacher_precision",
    "temperature",
    "kd_scale",
    "embedding_distance",
    "projector",
    "eval_teacher_head_weight",
)
# The comparison tells runs apart by these, and nothing else should.
_SET_HERE = (
    "output_dir",
    "seed",
    "save_strategy",
    "save_total_limit",
    "eval_strategy",
    "metric_for_best_model",
    "load_best_model_at_end",
)


def is_teacher(row: str) -> bool:
    """Whether a row is a teacher: the ordinary one, or one around a student's head."""
    return row == TEACHER or row.startswith(AROUND)


def nearest(name: str, known: Any) -> str:
    """Ends a message about a wrong name with the closest right ones."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(map(str, known))}"


def field_names(kind: Any) -> list[str]:
    """Of a dataclass, those that it is built from."""
    return [entry.name for entry in fields(kind) if entry.init]


def check_content(comparison: Any) -> None:
    """
    Checks what a [`Comparison`] is made of, before anything is read from it.

    Raises:
        ValueError: A row or field is unknown, has a value of another kind or contradicts another one, or the test images
            would choose something.
    """
    _check_values(comparison)
    check_names("data", comparison.data, field_names(DataArguments))
    for section in ("student", "teacher"):
        _check_network(section, getattr(comparison, section))
    for section in ("training", "teacher_training"):
        check_training(section, getattr(comparison, section))
        if "method" in getattr(comparison, section):
            raise ValueError(f"`{section}.method` has no place: every row of `methods` has its own, and teachers none")
    for row, content in comparison.methods.items():
        _check_row(row, content, comparison.methods)
    if comparison.baseline not in comparison.methods:
        raise ValueError(f"`baseline` is {comparison.baseline!r}{nearest(comparison.baseline, comparison.methods)}")
    _check_split(comparison.data, comparison.test_split)
    _check_published(comparison.published, comparison.published_source, comparison.methods)


def _check_values(comparison: Any) -> None:
    methods, seeds = comparison.methods, comparison.seeds
    if not isinstance(methods, Mapping) or not methods:
        raise ValueError(f"`methods` is {methods!r}; it must consist of rows, e.g. `kd: {{method: kd}}`")
    for name in ("baseline", "test_split", "title", "published_source"):
        value = getattr(comparison, name)
        if not isinstance(value, str) and not (value is None and name in ("title", "published_source")):
            raise ValueError(f"`{name}` is {value!r}; it must be text")
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not whole or not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"`seeds` is {seeds!r}; it must be a list of different whole numbers, e.g. [0, 1, 2]")
    if type(comparison.teacher_seed) is not int or comparison.teacher_seed < 0:
        raise ValueError(f"`teacher_seed` is {comparison.teacher_seed!r}; it must be a whole number")


def _check_network(section: str, content: Any) -> None:
    check_names(section, content, field_names(ModelArguments))
    if not content.get("backbone") and not content.get("name_or_path"):
        raise ValueError(f"`{section}` needs `backbone`, a new network, or `name_or_path`, trained weights")
    if content.get("embeddings_only"):
        raise ValueError(
            f"`{section}.embeddings_only` has no place here: a comparison judges its teacher by its classes; compare by runs of "
            "examples/run_distill.py"
        )


def _check_row(row: Any, content: Any, methods: Mapping[str, Any]) -> None:
    if not isinstance(row, str) or not row or is_teacher(row) or set(row) & set("/@|"):
        raise ValueError(
            f"a row cannot be called {row!r}; give it a name without `/`, `@` and `|`, and none that teachers have"
        )
    check_training(f"methods.{row}", content, ROW_FIELDS)
    check_names(f"methods.{row}.student", content.get("student", {}), field_names(ModelArguments))
    others = {name: content[name] for name in OTHER_ROWS if content.get(name) is not None}
    for name, other in others.items():
        if not isinstance(other, str) or other not in methods:
            raise ValueError(f"`methods.{row}.{name}` is {other!r}, which is no row{nearest(str(other), methods)}")
    if len(others) > 1:
        raise ValueError(
            f"`methods.{row}` has `temporary_student`, around whose head a teacher is trained, and `taught_by`, another "
            "teacher; leave one of them out"
        )


def _check_split(data: Mapping[str, Any], test_split: str) -> None:
    chooses = build_section("data", dict(data))
    if test_split == chooses.train_split:
        raise ValueError(
            f"`test_split` is {test_split!r}, the images that are trained on; name a split of other images"
        )
    if not chooses.validation_fraction and chooses.eval_split == chooses.train_split:
        raise ValueError(
            f"`data.eval_split` is {chooses.eval_split!r}, the images that are trained on; name another one"
        )
    if not chooses.validation_fraction and chooses.eval_split in (None, test_split):
        raise ValueError(
            "the best epoch is chosen by other images than those of `test_split`: set `data.validation_fraction`, or "
            "`data.eval_split` to a split for validation"
        )


def _check_published(published: Any, source: str | None, methods: Mapping[str, Any]) -> None:
    check_names("published", published, [*methods, TEACHER])
    for row, found in published.items():
        if isinstance(found, Mapping):
            check_names(f"published.{row}", found, ["value", "source"])
            if not isinstance(found.get("source"), str):
                raise ValueError(f"`published.{row}` needs `source`, whose number it is")
        value = found.get("value") if isinstance(found, Mapping) else found
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
            raise ValueError(f"`published.{row}` is {value!r}; it must be an accuracy in per cent, e.g. 75.51")
    plain = [row for row, found in published.items() if not isinstance(found, Mapping)]
    if bool(plain) != bool(source):
        raise ValueError(
            "`published` and `published_source` go together: say whose numbers they are, there or as `source` of each row"
        )


def check_names(section: str, content: Mapping[str, Any], known: Sequence[str]) -> None:
    """
    Raises:
        ValueError: `content` is no mapping, or has a name that is not `known`.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"`{section}` is {content!r}; it must consist of fields")
    for name in content:
        if name not in known:
            raise ValueError(f"`{section}` has no field {name!r}{nearest(name, known)}")


def check_training(section: str, content: Mapping[str, Any], further: Sequence[str] = ()) -> None:
    """
    Raises:
        ValueError: `content` has a name that is neither of [`DistillationConfig`] nor `further`, or one that the
            comparison sets itself.
    """
    names = [*field_names(DistillationConfig), *further]
    check_names(section, content, names)
    for name in _SET_HERE:
        if name in content:
            raise ValueError(f"`{section}.{name}` is set by the comparison itself; leave it out")
