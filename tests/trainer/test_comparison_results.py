"""The JSON file of a comparison: what may stand side by side."""

import json
from threading import Thread

import pytest
from filelock import FileLock
from toy_results import DATA, METHODS, cell_result, filled_results, table_comparison

from headshare_hf.trainer.comparison import Cell
from headshare_hf.trainer.comparison_checks import AROUND, TEACHER
from headshare_hf.trainer.comparison_results import ComparisonResults


def test_later_results_stand_beside_earlier_ones(tmp_path):
    filled_results(tmp_path / "results.json", ["kd"])
    results = ComparisonResults(tmp_path / "results.json", table_comparison())
    results.add(Cell("alone", 0, {}), cell_result("alone", 0.4))
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["rows"] == ["alone", "kd", "sh"] and content["cells"]["kd"]["seeds"]["2"]["last"]["accuracy"] == 0.7
    assert set(content["cells"]) == {"teacher", "kd", "alone", f"{AROUND}kd"}


def test_another_comparison_is_refused(tmp_path):
    filled_results(tmp_path / "results.json")
    with pytest.raises(
        ValueError, match=r"results.json holds another comparison: `training.num_train_epochs` is 2 there and 3 here"
    ):
        ComparisonResults(tmp_path / "results.json", table_comparison(training={"num_train_epochs": 3}))
    # Another place of the same images is no other comparison, and another machine is none.
    moved = {"name": "elsewhere", "validation_fraction": 0.25, "license": "MIT"}
    ComparisonResults(tmp_path / "results.json", table_comparison(data=moved))
    quick = {"num_train_epochs": 2, "use_cpu": True, "dataloader_num_workers": 4}
    ComparisonResults(tmp_path / "results.json", table_comparison(training=quick, teacher_training={"use_cpu": True}))
    # Also where an older file holds such fields.
    content = json.loads((tmp_path / "results.json").read_text())
    content["comparison"]["training"]["use_cpu"] = True
    (tmp_path / "results.json").write_text(json.dumps(content))
    ComparisonResults(tmp_path / "results.json", table_comparison())


def test_other_images_are_refused(tmp_path):
    results = filled_results(tmp_path / "results.json")
    with pytest.raises(
        ValueError, match="row 'kd': the results that there are belong to other images \\(`classes` is 2"
    ):
        results.add(Cell("kd", 9, {}), cell_result("kd", 0.5, data={**DATA, "classes": 3}))
    assert "9" not in results.content["cells"]["kd"]["seeds"]


def test_other_code_is_refused_unless_vouched_for(tmp_path):
    results = filled_results(tmp_path / "results.json")
    with pytest.raises(ValueError, match="holds results of version 1 of the code, and this is 2.*--accept-code 1"):
        results.add(Cell("kd", 9, {}), cell_result("kd", 0.5, code="2"))
    vouched = ComparisonResults(tmp_path / "results.json", table_comparison(), ["1"])
    vouched.add(Cell("kd", 9, {}), cell_result("kd", 0.5, code="2"))
    assert vouched.content["cells"]["kd"]["seeds"]["9"]["code"] == "2"


def test_students_beside_another_ordinary_teacher_are_refused(tmp_path):
    """Trained with the same options elsewhere, it has other weights."""
    results = filled_results(tmp_path / "results.json")
    mine, theirs = ({"teacher_digest": digest * 64} for digest in "ab")
    results.add(Cell("kd", 8, {}), {**cell_result("kd", 0.5), **mine})
    again = ComparisonResults(tmp_path / "results.json", table_comparison())
    with pytest.raises(
        ValueError, match=r"beside another teacher \(aaaaaaaaaaaa\) than kd/seed_9 has \(bbbbbbbbbbbb\)"
    ):
        again.add(Cell("kd", 9, {}), {**cell_result("kd", 0.5), **theirs})
    again.add(Cell("kd", 9, {}), {**cell_result("kd", 0.5), **mine})
    assert "teacher_digest" not in again.content["cells"]["kd"]["seeds"]["9"]
    # That teacher itself, before it takes the place of the other, and what is kept, before anything is trained.
    with pytest.raises(ValueError, match="beside another teacher .* than teacher/seed_0 has"):
        again.add(Cell(TEACHER, 0, {}), {**cell_result(TEACHER, 0.1), **theirs})
    assert again.content["cells"][TEACHER]["seeds"]["0"]["last"]["accuracy"] == 0.9
    with pytest.raises(ValueError, match="than kd/seed_9 has"):
        again.check_kept({"kd/seed_9": {**cell_result("kd", 0.5), **theirs}}, "1")


def test_a_row_with_other_options_is_refused(tmp_path):
    filled_results(tmp_path / "results.json")
    methods = {**METHODS, "kd": {"method": "kd", "kd_weight": 2.0}}
    results = ComparisonResults(tmp_path / "results.json", table_comparison(methods=methods))
    with pytest.raises(ValueError, match="row 'kd' was made with the options .* give the row another name"):
        results.check_rows()


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match="results.json is damaged"):
        ComparisonResults(tmp_path / "results.json", table_comparison())
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ValueError, match="results.json holds no results of a comparison; write to another file"):
        ComparisonResults(tmp_path / "results.json", table_comparison())


def test_two_commands_that_write_lose_nothing_of_each_other(tmp_path):
    path = tmp_path / "results.json"
    first, second = ComparisonResults(path, table_comparison()), ComparisonResults(path, table_comparison())
    first.add(Cell("kd", 0, {}), cell_result("kd", 0.5))
    second.add(Cell("kd", 1, {}), cell_result("kd", 0.6))
    first.add(Cell("alone", 0, {}), cell_result("alone", 0.4))
    cells = json.loads(path.read_text())["cells"]
    assert (
        set(cells) == {"kd", "alone"} and set(cells["kd"]["seeds"]) == {"0", "1"} and first.content["cells"] == cells
    )
    # What the other one wrote is checked as what was there before.
    with pytest.raises(ValueError, match="belong to other images"):
        second.add(Cell("kd", 2, {}), cell_result("kd", 0.6, data={**DATA, "classes": 3}))
    other = ComparisonResults(tmp_path / "other.json", table_comparison(training={"num_train_epochs": 3}))
    path.rename(tmp_path / "other.json")
    with pytest.raises(ValueError, match="holds another comparison"):
        other.add(Cell("kd", 0, {}), cell_result("kd", 0.5))


def test_a_writer_waits_for_another(tmp_path):
    results, lock = (
        ComparisonResults(tmp_path / "results.json", table_comparison()),
        FileLock(tmp_path / "results.json.lock"),
    )
    with lock:
        writer = Thread(target=results.add, args=(Cell("kd", 0, {}), cell_result("kd", 0.5)))
        writer.start()
        writer.join(0.5)
        assert writer.is_alive() and not (tmp_path / "results.json").exists()
    writer.join(20)
    assert not writer.is_alive() and (tmp_path / "results.json").exists()
