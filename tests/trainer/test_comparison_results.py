"""The JSON file of a comparison: what may stand side by side, and the table that is made of it."""

import json
from pathlib import Path
from threading import Thread

import pytest
from filelock import FileLock

from headshare_hf.trainer.comparison import Cell, Comparison
from headshare_hf.trainer.comparison_checks import AROUND, TEACHER
from headshare_hf.trainer.comparison_report import render_analysis, render_comparison, write_report
from headshare_hf.trainer.comparison_results import ComparisonResults


METHODS = {
    "alone": {"method": "plain"},
    "kd": {"method": "kd"},
    "sh": {"method": "sh_kd", "temporary_student": "kd"},
}
ACCURACY = {"kd": [0.5, 0.6, 0.7], "alone": [0.4, 0.51, 0.59], "sh": [0.55, 0.66, 0.74]}
DATA = {"images": {"train": 9, "validation": 3, "test": 4}, "labels": {"test": "abc"}, "classes": 2, "size": [3, 8, 8]}


def _comparison(**changes):
    content = {
        "data": {"name": "images", "validation_fraction": 0.25},
        "student": {"backbone": "resnet8"},
        "teacher": {"backbone": "resnet14"},
        "training": {"num_train_epochs": 2},
        "methods": METHODS,
        "baseline": "kd",
    }
    return Comparison(**{**content, **changes})


def _result(row, accuracy, seconds=10.0, code="1", data=None, memory=100.0):
    bins = {"edges": [0.0, 0.5, 1.0], "counts": [0, 4], "confidence": [None, 0.8], "accuracy": [None, accuracy]}
    measured = {
        "accuracy": accuracy,
        "calibration": {"expected_calibration_error": abs(0.8 - accuracy), **bins},
        "mean_per_class_accuracy": accuracy,
        "effective_dimension": 3.0,
        "cka": 0.5,
        "agreement": 0.5,
        "teacher_head_accuracy": None,
    }
    cost = {"train_seconds": seconds, "peak_memory_mib": memory, "training_only_parameters": 7}
    return {
        "code": code,
        "data": data or DATA,
        "last": measured,
        "best": {"accuracy": accuracy + 0.01, "mean_per_class_accuracy": accuracy, "epoch": 1.0},
        "curve": [[1.0, accuracy / 2], [2.0, accuracy]],
        "cost": cost,
    }


def _filled(path, rows=("kd", "alone", "sh")):
    results = ComparisonResults(path, _comparison())
    results.add(Cell(TEACHER, 0, {}), _result(TEACHER, 0.9))
    for row in rows:
        for seed, accuracy in enumerate(ACCURACY[row]):
            results.add(Cell(row, seed, {}), _result(row, accuracy))
    for seed in range(3):
        results.add(Cell(f"{AROUND}kd", seed, {}), _result(f"{AROUND}kd", 0.9, seconds=100.0))
    return results


def _table(content):
    lines = render_comparison(content).splitlines()
    return {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:])}


def test_the_table_has_means_differences_and_costs(tmp_path):
    table = _table(_filled(tmp_path / "results.json").content)
    assert list(table) == ["alone", "kd", "sh"]
    assert table["kd"] == ["3", "60.00 ± 10.00", "61.00 ± 10.00", "", "", "10", "100", "7"]
    # The differences are -10, -9 and -11: -10 ± t(2, 97.5 %) = 4.303 / sqrt(3), and p = 0.0033 of t = -17.32; the other has
    # 5, 6, 4 and t = 8.66, p = 0.0131. Holm doubles the smaller one.
    assert table["alone"][3:5] == ["-10.00 [-12.48, -7.52]", "0.0066"]
    assert table["sh"][3:5] == ["+5.00 [+2.52, +7.48]", "0.013"]
    # The temporary student and the teacher around its head are part of the price.
    assert table["sh"][5] == "120"


def test_classes_of_different_size_have_a_column(tmp_path):
    results = _filled(tmp_path / "results.json")
    results.content["cells"]["kd"]["seeds"]["1"]["last"]["mean_per_class_accuracy"] = 0.3
    assert render_comparison(results.content).splitlines()[0].count("mean over classes") == 1
    assert _table(results.content)["kd"][1:3] == ["60.00 ± 10.00", "50.00 ± 20.00"]


def test_the_analysis_has_what_could_be_measured(tmp_path):
    lines = render_analysis(_filled(tmp_path / "results.json").content).splitlines()
    found = dict(zip(*([cell.strip() for cell in lines[number].split("|")[1:-1]] for number in (0, 3)), strict=True))
    assert found["method"] == "kd" and found["CKA with the teacher"] == "0.500"
    assert found["effective dimension"] == "3.0" and found["accuracy through the teacher's head"] == ""


def test_later_results_stand_beside_earlier_ones(tmp_path):
    _filled(tmp_path / "results.json", ["kd"])
    results = ComparisonResults(tmp_path / "results.json", _comparison())
    results.add(Cell("alone", 0, {}), _result("alone", 0.4))
    content = json.loads((tmp_path / "results.json").read_text())
    assert list(_table(content)) == ["alone", "kd"] and content["cells"]["kd"]["seeds"]["2"]["last"]["accuracy"] == 0.7


def test_another_comparison_is_refused(tmp_path):
    _filled(tmp_path / "results.json")
    with pytest.raises(
        ValueError, match=r"results.json holds another comparison: `training` is .*2.* there and .*3.* here"
    ):
        ComparisonResults(tmp_path / "results.json", _comparison(training={"num_train_epochs": 3}))
    # Another place of the same images is no other comparison, and another machine is none.
    moved = {"name": "elsewhere", "validation_fraction": 0.25, "license": "MIT"}
    ComparisonResults(tmp_path / "results.json", _comparison(data=moved))
    quick = {"num_train_epochs": 2, "use_cpu": True, "dataloader_num_workers": 4}
    ComparisonResults(tmp_path / "results.json", _comparison(training=quick, teacher_training={"use_cpu": True}))
    # Also where an older file holds such fields.
    content = json.loads((tmp_path / "results.json").read_text())
    content["comparison"]["training"]["use_cpu"] = True
    (tmp_path / "results.json").write_text(json.dumps(content))
    ComparisonResults(tmp_path / "results.json", _comparison())


def test_other_images_are_refused(tmp_path):
    results = _filled(tmp_path / "results.json")
    with pytest.raises(
        ValueError, match="row 'kd': the results that there are belong to other images \\(`classes` is 2"
    ):
        results.add(Cell("kd", 9, {}), _result("kd", 0.5, data={**DATA, "classes": 3}))
    assert "9" not in results.content["cells"]["kd"]["seeds"]


def test_other_code_is_refused_unless_vouched_for(tmp_path):
    results = _filled(tmp_path / "results.json")
    with pytest.raises(ValueError, match="holds results of version 1 of the code, and this is 2.*--accept-code 1"):
        results.add(Cell("kd", 9, {}), _result("kd", 0.5, code="2"))
    vouched = ComparisonResults(tmp_path / "results.json", _comparison(), ["1"])
    vouched.add(Cell("kd", 9, {}), _result("kd", 0.5, code="2"))
    assert vouched.content["cells"]["kd"]["seeds"]["9"]["code"] == "2"


def test_a_row_with_other_options_is_refused(tmp_path):
    _filled(tmp_path / "results.json")
    methods = {**METHODS, "kd": {"method": "kd", "kd_weight": 2.0}}
    results = ComparisonResults(tmp_path / "results.json", _comparison(methods=methods))
    with pytest.raises(ValueError, match="row 'kd' was made with the options .* give the row another name"):
        results.check_rows()


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match="results.json is damaged"):
        ComparisonResults(tmp_path / "results.json", _comparison())
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ValueError, match="results.json holds no results of a comparison; write to another file"):
        ComparisonResults(tmp_path / "results.json", _comparison())


def test_two_commands_that_write_lose_nothing_of_each_other(tmp_path):
    path = tmp_path / "results.json"
    first, second = ComparisonResults(path, _comparison()), ComparisonResults(path, _comparison())
    first.add(Cell("kd", 0, {}), _result("kd", 0.5))
    second.add(Cell("kd", 1, {}), _result("kd", 0.6))
    first.add(Cell("alone", 0, {}), _result("alone", 0.4))
    cells = json.loads(path.read_text())["cells"]
    assert (
        set(cells) == {"kd", "alone"} and set(cells["kd"]["seeds"]) == {"0", "1"} and first.content["cells"] == cells
    )
    # What the other one wrote is checked as what was there before.
    with pytest.raises(ValueError, match="belong to other images"):
        second.add(Cell("kd", 2, {}), _result("kd", 0.6, data={**DATA, "classes": 3}))
    other = ComparisonResults(tmp_path / "other.json", _comparison(training={"num_train_epochs": 3}))
    path.rename(tmp_path / "other.json")
    with pytest.raises(ValueError, match="holds another comparison"):
        other.add(Cell("kd", 0, {}), _result("kd", 0.5))


def test_a_writer_waits_for_another(tmp_path):
    results, lock = (
        ComparisonResults(tmp_path / "results.json", _comparison()),
        FileLock(tmp_path / "results.json.lock"),
    )
    with lock:
        writer = Thread(target=results.add, args=(Cell("kd", 0, {}), _result("kd", 0.5)))
        writer.start()
        writer.join(0.5)
        assert writer.is_alive() and not (tmp_path / "results.json").exists()
    writer.join(20)
    assert not writer.is_alive() and (tmp_path / "results.json").exists()


def test_the_price_of_a_row_whose_temporary_student_is_unknown(tmp_path):
    content = _filled(tmp_path / "results.json").content
    del content["cells"]["kd"]["seeds"]["1"]
    with pytest.raises(ValueError, match="have sh/seed_1, but not kd/seed_1"):
        render_comparison(content)


def test_the_report_is_a_table_and_plots(tmp_path):
    content = _filled(tmp_path / "results.json").content
    files = write_report(content, tmp_path / "report")
    assert {path.name for path in files} == {
        "table.md",
        "accuracy.png",
        "curves.png",
        "reliability.png",
        "similarity.png",
    }
    assert all(path.stat().st_size > 10_000 for path in files if path.suffix == ".png")
    assert Path(files[0]).read_text().splitlines()[3] == render_comparison(content).splitlines()[3]


def test_a_report_without_the_baseline_yet(tmp_path):
    results = ComparisonResults(tmp_path / "results.json", _comparison())
    results.add(Cell("alone", 0, {}), _result("alone", 0.4, memory=None))
    assert "accuracy.png" not in {path.name for path in write_report(results.content, tmp_path / "report")}
    assert _table(results.content)["alone"] == ["1", "40.00", "41.00", "", "", "10", "", "7"]
