"""The tables that answer a question of the comparisons."""

import json
import sys
from pathlib import Path
from statistics import mean

import pytest

from headshare_hf.evaluation import compare_paired


sys.path.insert(0, str(Path(__file__).parents[1] / "docs/tools"))
site_answers = pytest.importorskip("site_answers")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(site_answers, "SETS", {"A": "a", "B": "b"})
    monkeypatch.setattr(site_answers, "QUESTIONS", {"q": {"th − kd": ("kd", "th"), "long − th": ("th", "long")}})
    for name, accuracies in {
        "a": {"kd": [0.50, 0.52, 0.50], "th": [0.53, 0.56, 0.54]},
        "b": {"kd": [0.2, 0.3], "th": [0.4, 0.1], "long": [0.9]},
    }.items():
        cells = {
            row: {"seeds": {str(seed): {"last": {"accuracy": value}} for seed, value in enumerate(values)}}
            for row, values in accuracies.items()
        }
        (tmp_path / f"{name}.json").write_text(json.dumps({"cells": cells}))
    return tmp_path


def _cells(text):
    return [[cell.strip().replace("\u00a0", " ") for cell in line.split("|")[1:-1]] for line in text.splitlines()]


def test_differences_are_paired_and_bold_where_they_are_not_zero(folder):
    head, _, first, second = _cells(site_answers.answers("q", folder))
    assert head == ["points", "A", "B"]
    # Differences of 3, 4 and 4 points: deviation 0.5774, t of two degrees of freedom 4.3027.
    assert first == ["th − kd", "**+3.67** [+2.23, +5.10]", "+0.00 [−254.12, +254.12]"]
    assert second == ["long − th", "", "+50.00"]


def test_every_row_of_the_questions_is_one_of_the_comparisons():
    known = {
        row
        for name in site_answers.SETS.values()
        for row in json.loads((site_answers.RESULTS / f"{name}.json").read_text(encoding="utf-8"))["cells"]
    }
    asked = {row for lines in site_answers.QUESTIONS.values() for pair in lines.values() for row in pair}
    assert asked <= known


# What the page says of two rows: the second is ahead of the first, behind it, or not told apart from it.
AHEAD, BEHIND, UNDECIDED = "ahead", "behind", "undecided"
SETS = ("omniglot", "tiny_imagenet_100", "cifar10", "grocery_store")


def _found(name, baseline, row):
    return site_answers.difference(site_answers.RESULTS / f"compare_{name}.json", baseline, row)


def _verdict(found):
    if found.low > 0:
        return AHEAD
    return BEHIND if found.high < 0 else UNDECIDED


@pytest.mark.parametrize(
    "baseline, row, verdicts",
    [
        ("kd", "th_kd_0.25", (UNDECIDED, UNDECIDED, UNDECIDED, AHEAD)),
        ("kd", "th_kd_0.5", (UNDECIDED, UNDECIDED, UNDECIDED, AHEAD)),
        ("kd", "th_kd_1.0", (BEHIND, UNDECIDED, BEHIND, UNDECIDED)),
        ("kd", "th_kd_reference", (UNDECIDED, UNDECIDED, UNDECIDED, UNDECIDED)),
        ("kde", "th_kde", (UNDECIDED, UNDECIDED, UNDECIDED, UNDECIDED)),
        ("th_kd_0.5", "sh_kd_distilled", (AHEAD, AHEAD, BEHIND, UNDECIDED)),
        ("th_kd_0.5", "sh_kde", (AHEAD, AHEAD, UNDECIDED, UNDECIDED)),
        ("th_kd_0.5", "sh_kd", (UNDECIDED, UNDECIDED, UNDECIDED, BEHIND)),
        ("kd", "sh_kd_distilled", (AHEAD, AHEAD, BEHIND, UNDECIDED)),
        ("kd", "sh_kd", (UNDECIDED, UNDECIDED, UNDECIDED, BEHIND)),
        ("sh_kd", "sh_kd_frozen", (UNDECIDED, None, UNDECIDED, UNDECIDED)),
        ("sh_kd_distilled", "sh_kd_distilled_frozen", (UNDECIDED, UNDECIDED, BEHIND, UNDECIDED)),
        ("kd", "kd_3x", (AHEAD, AHEAD, AHEAD, None)),
        ("kd", "kd_of_teacher_long", (AHEAD, AHEAD, UNDECIDED, None)),
        ("kd_3x", "sh_kde", (UNDECIDED, BEHIND, BEHIND, None)),
        ("kd_of_teacher_long", "sh_kde", (UNDECIDED, BEHIND, UNDECIDED, None)),
        ("teacher_alone", "teacher_long", (UNDECIDED, AHEAD, AHEAD, None)),
        ("teacher_alone", "teacher_around_kd", (UNDECIDED, AHEAD, BEHIND, None)),
        ("teacher_alone", "teacher_around_student", (BEHIND, UNDECIDED, UNDECIDED, None)),
        ("kd", "student", (BEHIND, BEHIND, BEHIND, BEHIND)),
        ("kd", "kde", (UNDECIDED, UNDECIDED, UNDECIDED, AHEAD)),
        ("kd", "simkd", (UNDECIDED, BEHIND, UNDECIDED, AHEAD)),
        ("kd", "srrl", (UNDECIDED, None, BEHIND, None)),
        ("kd", "dkd", (BEHIND, None, BEHIND, None)),
    ],
)
def test_what_the_page_says_of_two_rows_holds(baseline, row, verdicts):
    for name, verdict in zip(SETS, verdicts, strict=True):
        if verdict is not None:
            assert _verdict(_found(name, baseline, row)) == verdict, name


def _page():
    return " ".join((site_answers.RESULTS / "comparisons.md").read_text(encoding="utf-8").split())


def _mean(name, row):
    cells = json.loads((site_answers.RESULTS / f"compare_{name}.json").read_text(encoding="utf-8"))["cells"]
    return 100 * mean(cell["last"]["accuracy"] for cell in cells[row]["seeds"].values())


def test_numbers_of_the_page_are_those_of_the_files():
    page = _page()
    lost = -100 * _found("cifar10", "teacher_alone", "teacher_around_kd").mean
    assert f"CIFAR-10 it is {lost:.1f} points worse in the mean" in page
    behind = {round(-100 * _found("cifar10", row, "sh_kd_distilled").mean) for row in ("kd", "th_kd_0.5")}
    assert behind == {2} and "the same is 2 points *behind* both" in page
    grocery = {share: 100 * _found("grocery_store", "kd", f"th_kd_{share}").mean for share in ("0.25", "0.5")}
    assert f"by {grocery['0.25']:.1f} points with a quarter and {grocery['0.5']:.1f} with half" in page
    around = {row: _mean("grocery_store", f"teacher_around_{row}") for row in ("kd", "student")}
    assert f"{around['kd']:.1f} around the head of a student of KD, {around['student']:.1f} around that of" in page
    more = [round(-100 * _found(name, "kd_3x", "sh_kde").mean) for name in ("tiny_imagenet_100", "cifar10")]
    assert f"and gain {more[0]} and {more[1]} points more on Tiny ImageNet and CIFAR-10" in page
    teachers = [round(_mean("cifar10", row)) for row in ("teacher_long", "teacher")]
    assert f"a teacher with {teachers[0]} per cent in place of {teachers[1]} teaches" in page


def test_sh_kd_from_labels_is_hardly_better_than_labels_on_the_grocery_store():
    assert (
        f"on the Grocery Store it is {-100 * _found('grocery_store', 'kd', 'sh_kd').mean:.0f} points behind" in _page()
    )
    assert abs(_found("grocery_store", "student", "sh_kd").mean) < 0.01


def test_no_row_of_ordinary_price_beats_kd_on_three_sets():
    for name in SETS[:3]:
        cells = json.loads((site_answers.RESULTS / f"compare_{name}.json").read_text(encoding="utf-8"))["cells"]
        dear = {"num_train_epochs", "taught_by", "temporary_student"}
        rows = [
            row for row, found in cells.items() if not row.startswith("teacher") and not dear & found["options"].keys()
        ]
        assert len(rows) > 9 and not [
            row for row in rows if row != "kd" and _verdict(_found(name, "kd", row)) == AHEAD
        ]


def test_the_length_of_the_shared_classifier_is_as_the_page_says():
    page = _page()
    stored = json.loads((site_answers.RESULTS / "head_length_cifar10.json").read_text(encoding="utf-8"))
    lengths = {name: {row: mean(values) for row, values in found.items()} for name, found in stored["lengths"].items()}
    ratios = sorted(round(found["kd"] / found["student"], 1) for found in lengths.values())
    assert f"is {ratios[0]} to {ratios[-1]} times as long" in page
    for name, title in (
        ("omniglot", "on Omniglot"),
        ("grocery_store", "on the Grocery Store"),
        ("tiny_imagenet_100", "on Tiny ImageNet"),
        ("cifar10", "on CIFAR-10"),
    ):
        found = lengths[name]
        assert f"{found['kd']:.1f} against {found['student']:.1f} {title}" in page
    cells = json.loads((site_answers.RESULTS / "compare_cifar10.json").read_text(encoding="utf-8"))["cells"]
    for row in ("teacher_around_kd", "sh_kd_distilled", "sh_kde"):
        before = mean(cells[row]["seeds"][seed]["last"]["accuracy"] for seed in stored["seeds"])
        assert mean(found[row] for found in stored["seeds"].values()) > before
    kd = {int(seed): cells["kd"]["seeds"][seed]["last"]["accuracy"] for seed in stored["seeds"]}
    for row in ("sh_kd_distilled", "sh_kde"):
        after = {int(seed): found[row] for seed, found in stored["seeds"].items()}
        found = compare_paired({"kd": kd, row: after}, "kd")[row]
        assert _verdict(found) == UNDECIDED, row
    gained = mean(
        found["sh_kd_distilled"] - cells["sh_kd_distilled"]["seeds"][seed]["last"]["accuracy"]
        for seed, found in stored["seeds"].items()
    )
    assert round(100 * gained) == 2 and "Its student gains 2 points by that" in page
