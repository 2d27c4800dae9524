"""The table of all stored comparisons together."""

import json
import sys
from pathlib import Path

import pytest


sys.path.insert(0, str(Path(__file__).parents[1] / "docs/tools"))
site_pooled = pytest.importorskip("site_pooled")


def _store(folder, name, accuracies):
    cells = {
        row: {"options": {}, "seeds": {str(seed): {"last": {"accuracy": value}} for seed, value in enumerate(values)}}
        for row, values in accuracies.items()
    }
    for row, options in {"large": {"student": {"backbone": "resnet20"}}, "of_large": {"taught_by": "large"}}.items():
        cells.get(row, {}).update(options=options)
    common = {"student": {"backbone": "resnet8"}, "teacher": {}, "training": {}, "teacher_training": {}}
    content = {"rows": list(accuracies), "cells": cells, "baseline": "kd", "comparison": common}
    (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(site_pooled, "SETS", {"A": "a", "B": "b", "C": "c"})
    both = {"large": [0.9, 0.9], "of_large": [0.25, 0.35]}
    _store(tmp_path, "a", {"kd": [0.50, 0.52], "th": [0.51, 0.53], "once": [0.9, 0.9]})
    _store(tmp_path, "b", {"kd": [0.20, 0.30], "th": [0.23, 0.33], **both})
    _store(tmp_path, "c", {"kd": [0.20, 0.30], **both})
    return tmp_path


def test_differences_are_taken_within_a_set_and_a_seed(folder):
    table = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in site_pooled.pooled("kd", folder).splitlines()
    ]
    assert table[0][:5] == ["method", "A", "B", "C", "pairs"]
    # A row of one set alone, a teacher, and the baseline, are not there.
    assert [cells[0] for cells in table[2:]] == ["th", "of_large"]
    assert table[2][1:5] == ["+1.00", "+3.00", "", "4"] and table[3][1:5] == ["", "+5.00", "+5.00", "4"]
    # Mean 2; sample deviation 1.1547 of four differences, t of three degrees of freedom 3.1824.
    assert table[2][5] == "+2.00 [+0.16, +3.84]"


def test_a_baseline_that_no_set_has_is_refused(folder):
    with pytest.raises(ValueError, match="'dkd' is not among"):
        site_pooled.pooled("dkd", folder)
