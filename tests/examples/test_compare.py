"""A comparison as a user starts it: trained, cut, gone on with, added to."""

import json
import os
import runpy
import shutil
import subprocess
import sys
import time

import pytest
from processes import ROOT, environment, run_python
from toy_results import cell_result

from headshare_hf.trainer.comparison import Cell, read_comparison
from headshare_hf.trainer.comparison_checks import AROUND
from headshare_hf.trainer.comparison_results import ComparisonResults


CONFIG = """
title: Two rows
data: {name: DATA, image_size: 16, augmentation: crop_white, validation_fraction: 0.2, max_train_samples: 300}
student: {backbone: resnet8}
teacher: {backbone: resnet14}
training:
  {num_train_epochs: 2, per_device_train_batch_size: 64, per_device_eval_batch_size: 256, use_cpu: true, disable_tqdm: true, logging_strategy: epoch}
baseline: kd
seeds: [0]
methods:
  kd: {method: kd}
  sh_kd: {method: sh_kd, temporary_student: kd}
"""


def _command(folder, *options):
    return ["examples/compare.py", "--config", str(folder / "c.yaml"), "--output", str(folder / "out"), *options]


def _run(folder, *options, check=True):
    return run_python(*_command(folder, *options), check=check)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("comparison")
    (place / "c.yaml").write_text(CONFIG.replace("DATA", str(ROOT / "examples/data/omniglot-8alphabets")))
    return place


@pytest.fixture(scope="module")
def first(folder):
    """A comparison that was killed in its first cells, and then brought to its end."""
    process = subprocess.Popen(
        [sys.executable, *_command(folder, "--rows", "kd", "sh_kd", "--jobs", "2")],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    done, deadline = folder / "out" / "teacher" / "seed_0" / "cell.json", time.monotonic() + 400
    while not done.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert done.exists()
    os.killpg(process.pid, 9)
    process.wait()
    before = done.stat().st_mtime_ns
    result = _run(folder, "--jobs", "2")
    assert done.stat().st_mtime_ns == before
    return result


def _results(folder):
    return json.loads((folder / "out" / "results.json").read_text())


@pytest.mark.slow
def test_a_killed_comparison_ends_with_a_table_and_plots(folder, first):
    cells = _results(folder)["cells"]
    assert set(cells) == {"teacher", "teacher_around_kd", "kd", "sh_kd"}
    for row in cells.values():
        cell = row["seeds"]["0"]
        assert 0 <= cell["last"]["accuracy"] <= 1 and cell["best"]["epoch"] in (1.0, 2.0) and len(cell["curve"]) == 2
        best = max(accuracy for _, accuracy in cell["curve"])
        assert cell["best"]["validation_accuracy"] == best
        assert len(cell["loss_curve"]) == 2 and cell["trained_code"] == cell["code"]
        assert cell["cost"]["peak_memory_mib"] > 50 and cell["cost"]["train_seconds"] > 0
    student = cells["sh_kd"]["seeds"]["0"]["last"]
    # Its own teacher is another one than that with which all rows are compared.
    assert student["own_teacher"]["num_images"] == student["num_images"] == 1210
    assert student["own_teacher"]["cka"] != student["cka"]
    assert "| sh_kd | 1 |" in first.stdout and str(folder) not in (folder / "out" / "results.json").read_text()
    assert (folder / "out" / "report" / "accuracy.png").stat().st_size > 10_000
    # What the cells themselves print is kept with them.
    assert "train_runtime" in (folder / "out" / "kd" / "seed_0" / "log.txt").read_text()


@pytest.mark.slow
def test_rows_are_added_and_a_failing_one_takes_no_other_with_it(folder, first):
    text = (folder / "c.yaml").read_text()
    late = "  broken: {method: kd, learning_rate: 1.0e+30}\n  alone: {method: plain}\n"
    (folder / "c.yaml").write_text(text + late)
    done = _run(folder, "--rows", "broken", "alone", "--jobs", "2", check=False)
    (folder / "c.yaml").write_text(text)
    assert done.returncode == 1
    assert "broken/seed_0: NonFiniteLossError" in done.stderr and "log.txt" in done.stderr
    assert set(_results(folder)["cells"]) == {"teacher", "teacher_around_kd", "kd", "sh_kd", "alone"}


def test_cells_that_failed_are_named_whatever_becomes_of_the_report(folder, first, monkeypatch):
    main = runpy.run_path(str(ROOT / "examples" / "compare.py"))["main"]

    def fails(message, kind):
        def failing(*args):
            raise kind(message)

        return failing

    monkeypatch.setitem(main.__globals__, "run", fails("kd/seed_0: diverged", main.__globals__["CellError"]))
    monkeypatch.setitem(main.__globals__, "show", fails("no plot", ValueError))
    with pytest.raises(SystemExit, match="kd/seed_0: diverged\nThe report could not be made either: no plot"):
        main(_command(folder)[1:])


@pytest.mark.slow
def test_rows_that_could_not_begin_are_all_named_before_the_first_training(folder, first):
    text = (folder / "c.yaml").read_text()
    late = (
        "  many: {method: crd, num_negatives: 5000}\n"
        "  wide: {method: th_kd, student: {embedding_size: 32}}\n"
        "  around: {method: sh_kd, temporary_student: wide}\n"
        "  new: {method: dkd}\n"
    )
    (folder / "c.yaml").write_text(text + late)
    done = _run(folder, "--jobs", "2", check=False)
    (folder / "c.yaml").write_text(text)
    assert done.returncode == 1 and "[" not in done.stdout
    assert "row 'many': `num_negatives` is 5000" in done.stderr and "row 'wide': " in done.stderr
    assert "row 'new'" not in done.stderr and not (folder / "out" / "new").exists()


def test_nothing_is_trained_for_a_report_or_with_other_options(folder, first, capsys):
    main = runpy.run_path(str(ROOT / "examples" / "compare.py"))["main"]
    options = _command(folder)[1:]
    main([*options, "--report"])
    printed = capsys.readouterr().out
    assert (
        printed.count("| kd | 1 |") == 1 and printed.count("| teacher_around_kd | 1 |") == 1 and "[1/" not in printed
    )
    with pytest.raises(ValueError, match="another comparison: `training.num_train_epochs` is 2 there and 3 here"):
        main([*options, "--training.num_train_epochs", "3"])
    with pytest.raises(SystemExit, match="--jobs is 0; it must be at least 1"):
        main([*options, "--jobs", "0"])


def _main(folder, *options):
    runpy.run_path(str(ROOT / "examples" / "compare.py"))["main"]([*_command(folder)[1:], *options])


def test_another_row_to_compare_with_needs_no_other_file(folder, first, capsys):
    before = _results(folder)
    _main(folder, "--report", "--baseline", "sh_kd")
    printed = capsys.readouterr().out
    assert "difference from sh_kd, points" in printed and "difference from kd" not in printed
    assert _results(folder) == before
    with pytest.raises(ValueError, match="there is no row 'sh_kdd'; did you mean 'sh_kd'"):
        _main(folder, "--report", "--baseline", "sh_kdd")


def test_cells_of_other_options_are_refused_whatever_the_results_file(folder, first):
    with pytest.raises(ValueError, match="teacher/seed_0 was finished with other options: `training.learning_rate`"):
        _main(folder, "--results", str(folder / "new.json"), "--training.learning_rate", "0.3")
    assert not (folder / "new.json").exists()


def test_cells_of_other_code_are_refused_before_any_training(folder, first, monkeypatch):
    path = folder / "out" / "kd" / "seed_0" / "cell.json"
    text = path.read_text()
    path.write_text(json.dumps({**json.loads(text), "code": "0.0+old"}))
    with pytest.raises(ValueError, match="cell kd/seed_0 was judged by version 0.0.old of the code"):
        _main(folder, "--results", str(folder / "new.json"), "--seeds", "0", "7")
    assert not (folder / "new.json").exists() and not (folder / "out" / "kd" / "seed_7").exists()
    path.write_text(text)


def test_a_report_of_nothing_is_refused(folder, capsys):
    with pytest.raises(SystemExit, match="there are no results in .*none.json; leave out --report to train, or name"):
        _main(folder, "--report", "--results", str(folder / "none.json"))


@pytest.fixture
def stored(folder, tmp_path):
    """The comparison beside results that nothing was trained for."""
    shutil.copy(folder / "c.yaml", tmp_path)
    comparison = read_comparison(tmp_path / "c.yaml")
    results = ComparisonResults(tmp_path / "out" / "results.json", comparison)
    for row, accuracy in {"kd": 0.5, f"{AROUND}kd": 0.8, "sh_kd": 0.6}.items():
        for seed in (0, 1):
            results.add(Cell(row, seed, {}), cell_result(row, accuracy + seed / 10))
    return tmp_path


def test_a_report_is_of_the_rows_and_seeds_that_are_named(stored, capsys):
    _main(stored, "--report")
    assert "| sh_kd | 2 | 65.00" in capsys.readouterr().out
    _main(stored, "--report", "--seeds", "1")
    printed = capsys.readouterr().out
    assert "| kd | 1 | 60.00" in printed and "| sh_kd | 1 | 70.00" in printed
    _main(stored, "--report", "--rows", "kd")
    assert "sh_kd" not in capsys.readouterr().out + (stored / "out" / "report" / "table.md").read_text()
    with pytest.raises(ValueError, match="no results with seed 5, but with 0, 1"):
        _main(stored, "--report", "--seeds", "5")


@pytest.mark.parametrize("option, value", [("--jobs", "2"), ("--accept-code", "0.1+abc")])
def test_a_report_refuses_what_says_how_to_train(stored, option, value):
    with pytest.raises(SystemExit, match=f"{option} says how to train, and --report trains nothing; leave one"):
        _main(stored, "--report", option, value)


def test_a_report_without_any_student_is_refused(stored):
    content = _results(stored)
    content["cells"] = {f"{AROUND}kd": content["cells"][f"{AROUND}kd"]}
    (stored / "out" / "results.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="there are no results of students yet"):
        _main(stored, "--report")


def test_copies_that_a_launcher_starts_are_refused(folder, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="a launcher started 2 copies"):
        _main(folder)


def test_cells_that_other_code_has_begun_are_refused_before_any_training(folder, first, tmp_path, monkeypatch):
    """Trained, and not yet judged."""
    shutil.copytree(folder / "out", tmp_path / "out")
    shutil.copy(folder / "c.yaml", tmp_path)
    for path in [tmp_path / "out" / "results.json", *(tmp_path / "out").rglob("cell.json")]:
        path.unlink()
    monkeypatch.setattr("headshare_hf.trainer.comparison_cells.code_version", lambda: "other")
    monkeypatch.setattr("headshare_hf.trainer.comparison_run._start", None)
    with pytest.raises(ValueError, match="training of cell teacher/seed_0 was begun by version .* and this is other"):
        _main(tmp_path)
