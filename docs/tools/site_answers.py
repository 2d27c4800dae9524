"""One question, one table: paired differences between two rows on every stored comparison."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from site_pooled import RESULTS, SETS

from headshare_hf.evaluation import PairedDifference, compare_paired
from headshare_hf.trainer.comparison_values import markdown, values_of


# What a line of a table is called, and the rows that are subtracted: the second minus the first.
QUESTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "th_kd": {
        "a quarter of the mass (`th_kd_0.25`) − KD": ("kd", "th_kd_0.25"),
        "half of the mass (`th_kd_0.5`) − KD": ("kd", "th_kd_0.5"),
        "its limit (`th_kd_1.0`) − KD": ("kd", "th_kd_1.0"),
        "the authors' 0.02 (`th_kd_reference`) − KD": ("kd", "th_kd_reference"),
        "with the embedding distance (`th_kde`) − without the head (`kde`)": ("kde", "th_kde"),
    },
    "sh_kd": {
        "from labels alone (`sh_kd`) − TH-KD": ("th_kd_0.5", "sh_kd"),
        "from KD (`sh_kd_distilled`) − TH-KD": ("th_kd_0.5", "sh_kd_distilled"),
        "from KD, with the embedding distance (`sh_kde`) − TH-KD": ("th_kd_0.5", "sh_kde"),
        "from labels alone (`sh_kd`) − KD": ("kd", "sh_kd"),
        "from KD (`sh_kd_distilled`) − KD": ("kd", "sh_kd_distilled"),
        "classifier frozen in the last run − free, from labels": ("sh_kd", "sh_kd_frozen"),
        "classifier frozen in the last run − free, from KD": ("sh_kd_distilled", "sh_kd_distilled_frozen"),
    },
    "budget": {
        "KD for three times the epochs (`kd_3x`) − KD": ("kd", "kd_3x"),
        "KD of a longer trained teacher (`kd_of_teacher_long`) − KD": ("kd", "kd_of_teacher_long"),
        "`sh_kde` − `kd_3x`": ("kd_3x", "sh_kde"),
        "`sh_kde` − `kd_of_teacher_long`": ("kd_of_teacher_long", "sh_kde"),
        "`sh_kd` − `kd_3x`": ("kd_3x", "sh_kd"),
    },
    "teacher": {
        "around the head of a student of labels − alone": ("teacher_alone", "teacher_around_student"),
        "around the head of a student of KD − alone": ("teacher_alone", "teacher_around_kd"),
        "longer trained − alone": ("teacher_alone", "teacher_long"),
    },
    "others": {
        "student alone − KD": ("kd", "student"),
        "embedding distance (`kde`) − KD": ("kd", "kde"),
        "CRD and KD − KD": ("kd", "crd_kd"),
        "SimKD − KD": ("kd", "simkd"),
        "SRRL − KD": ("kd", "srrl"),
        "DKD − KD": ("kd", "dkd"),
    },
}


def answers(question: str, folder: Path = RESULTS) -> str:
    """
    The table of a question: for every set the mean difference in points and its 95 % interval, bold where that holds no
    zero, and empty where a row was not run.

    Args:
        question (`str`): Of `QUESTIONS`.
        folder (`Path`): Where the stored comparisons are.
    """
    lines = QUESTIONS[question]
    columns = {"points": {line: line for line in lines}}
    for title, name in SETS.items():
        cells = {line: difference(folder / f"{name}.json", *pair) for line, pair in lines.items()}
        columns[title] = {line: _told(found) for line, found in cells.items()}
    return markdown(columns, list(lines))


def difference(path: Path, baseline: str, row: str) -> PairedDifference | None:
    """
    Of the last epochs of two rows of a stored comparison over the seeds that both have; `None` where one was not run.

    Args:
        path (`Path`): The file.
        baseline (`str`): A row, also one of teachers.
        row (`str`): Likewise.
    """
    cells = _cells(path)
    if not {baseline, row} <= cells.keys():
        return None
    return compare_paired(values_of({name: cells[name]["seeds"] for name in (baseline, row)}), baseline)[row]


@cache
def _cells(path: Path) -> Mapping[str, Any]:
    # One page asks some thirty times, and a file has a megabyte.
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def _told(found: PairedDifference | None) -> str:
    if found is None or found.mean is None:
        return ""
    mean = f"{100 * found.mean:+.2f}"
    if found.low is None or found.high is None:
        return mean.replace("-", "−")
    interval = f"[{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
    mean = f"**{mean}**" if found.low > 0 or found.high < 0 else mean
    # Not to be broken at its blanks.
    return f"{mean} {interval}".replace("-", "−").replace(" ", "\u00a0")


# Rows of a comparison that were made again with another length of the shared classifier, and what they are called.
_SCALED = {
    "teacher_around_kd": "teacher around the head of a student of KD",
    "sh_kd_distilled": "student of that teacher (`sh_kd_distilled`)",
    "sh_kde": "the same with the embedding distance (`sh_kde`)",
}


def head_length(folder: Path = RESULTS) -> str:
    """The table of what the length of the shared classifier does on CIFAR-10: accuracies by seed, and paired differences."""
    cells = _cells(folder / "compare_cifar10.json")
    scaled = json.loads((folder / "head_length_cifar10.json").read_text(encoding="utf-8"))["seeds"]
    columns: dict[str, dict[str, str]] = {
        "top-1 test accuracy": _SCALED,
        "as it is": {},
        "as long as an ordinary one": {},
    }
    columns["difference"] = {}
    for row in _SCALED:
        before = {int(seed): cells[row]["seeds"][seed]["last"]["accuracy"] for seed in scaled}
        after = {int(seed): found[row] for seed, found in scaled.items()}
        columns["as it is"][row], columns["as long as an ordinary one"][row] = (
            ", ".join(f"{100 * value:.1f}" for value in values.values()) for values in (before, after)
        )
        columns["difference"][row] = _told(compare_paired({"before": before, "after": after}, "before")["after"])
    return markdown(columns, list(_SCALED))
