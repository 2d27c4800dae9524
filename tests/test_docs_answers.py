"""The tables that answer a question of the comparisons."""

import json
import sys
from pathlib import Path

import pytest


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
