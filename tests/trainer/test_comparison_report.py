"""The tables and plots that are made of the JSON file of a comparison."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from toy_results import METHODS, cell_result, filled_results, table_comparison

from headshare_hf.trainer.comparison import Cell
from headshare_hf.trainer.comparison_checks import AROUND, TEACHER
from headshare_hf.trainer.comparison_report import render_analysis, render_comparison, write_report
from headshare_hf.trainer.comparison_results import ComparisonResults
from headshare_hf.trainer.comparison_teachers import render_teachers, teachers_alone
from headshare_hf.trainer.comparison_values import restrict_results


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, by the names of their files."""
    figures, save = {}, Figure.savefig

    def remember(self, path, **kwargs):
        figures[Path(path).name] = self
        return save(self, path, **kwargs)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def _cells(line):
    return [cell.strip() for cell in line.split("|")[1:-1]]


def _table(text):
    """Rows of a table by their names, without its legend."""
    lines = text.split("\n\n")[0].splitlines()
    return {cells[0]: dict(zip(_cells(lines[0]), cells, strict=True)) for cells in map(_cells, lines[2:])}


def _legend(text):
    (legend,) = text.split("\n\n")[1:]
    assert "\n" not in legend
    return legend


@pytest.fixture
def content(tmp_path):
    return filled_results(tmp_path / "results.json").content


def test_the_table_has_means_differences_and_costs(content):
    table = _table(render_comparison(content))
    assert list(table) == ["alone", "kd", "sh"]
    assert table["kd"] == {
        "method": "kd",
        "seeds": "3",
        "test accuracy, % (mean ± standard deviation)": "60.00 ± 10.00",
        "at the best epoch, %": "61.00 ± 10.00",
        "difference from kd, points [95 % interval]": "",
        "p": "",
        "seconds": "10",
        "memory, MiB": "100",
        "parameters": "4,321",
        "parameters in training only": "7",
    }
    # The differences are -10, -9 and -11: -10 ± t(2, 97.5 %) = 4.303 / sqrt(3), and p = 0.0033 of t = -17.32; the other has
    # 5, 6, 4 and t = 8.66, p = 0.0131. Holm doubles the smaller one.
    difference = "difference from kd, points [95 % interval]"
    assert (table["alone"][difference], table["alone"]["p"]) == ("-10.00 [-12.48, -7.52]", "0.0066")
    assert (table["sh"][difference], table["sh"]["p"]) == ("+5.00 [+2.52, +7.48]", "0.013")
    # The temporary student and the teacher around its head are part of the price.
    assert table["sh"]["seconds"] == "120"


def test_the_legend_says_what_stands_there(content):
    legend = _legend(render_comparison(content))
    assert legend.startswith(
        "±: standard deviation over the seeds. Difference from kd: paired seed by seed, with the 95 %"
    )
    for part in (
        "paired t-test over 3 seeds",
        "(Holm)",
        "temporary student",
        "without that of the ordinary teacher",
        "of the process on a CPU, of the allocator on an accelerator",
    ):
        assert part in legend
    assert "Published" not in legend
    assert "Seeds without" not in legend and "not alike" not in legend
    del content["cells"]["alone"]["seeds"]["0"]
    legend = _legend(render_comparison(content))
    assert "over 2 to 3 seeds" in legend
    assert (
        "Seeds without a result, because they were not run or failed: alone of 0. Means are over the others." in legend
    )
    for seed, threads in (("0", 1), ("1", 2)):
        content["cells"]["kd"]["seeds"][seed]["cost"] |= {"device": "cpu", "threads": threads}
    legend = _legend(render_comparison(content))
    assert "Seconds and memory are of cpu with 1 threads, cpu with 2 threads, which are not alike." in legend


def test_another_baseline_needs_no_other_file(content):
    table = _table(render_comparison({**content, "baseline": "sh"}))
    assert table["kd"]["difference from sh, points [95 % interval]"] == "-5.00 [-7.48, -2.52]"


def test_some_rows_are_shown_beside_the_baseline_and_at_their_whole_price(content):
    found = restrict_results(content, ["sh"])
    table = _table(render_comparison(found))
    assert list(table) == ["kd", "sh"] and table["sh"]["seconds"] == "120"
    # One row less to correct for.
    assert table["sh"]["p"] == "0.013" and _table(render_comparison(content))["alone"]["p"] == "0.0066"
    assert list(_table(render_analysis(found))) == ["kd", "sh"]
    assert f"{AROUND}kd" in _table(render_teachers(found))
    # What nothing that is shown was taught by is no teacher of the table.
    assert list(_table(render_teachers(restrict_results(content, ["alone"])))) == [TEACHER]
    assert list(_table(render_comparison(restrict_results({**content, "baseline": "sh"}, ["alone"])))) == [
        "alone",
        "sh",
    ]


def test_some_seeds_are_shown_beside_the_one_ordinary_teacher(content):
    found = restrict_results(content, seeds=[1, 2])
    table = _table(render_comparison(found))
    assert {
        row: (cells["seeds"], cells["test accuracy, % (mean ± standard deviation)"]) for row, cells in table.items()
    } == {
        "alone": ("2", "55.00 ± 5.66"),
        "kd": ("2", "65.00 ± 7.07"),
        "sh": ("2", "70.00 ± 5.66"),
    }
    teachers = _table(render_teachers(found))
    assert (teachers[TEACHER]["seeds"], teachers[f"{AROUND}kd"]["seeds"]) == ("1", "2")
    assert "Seeds without" not in render_comparison(found)
    # A row without any of them is none of the table.
    del content["cells"]["alone"]["seeds"]["2"]
    assert list(_table(render_comparison(restrict_results(content, seeds=[2])))) == ["kd", "sh"]


def test_a_report_of_everything_is_that_of_the_file(content, tmp_path):
    assert restrict_results(content) == content
    write_report(restrict_results(content, ["sh", "alone"], [0, 1, 2]), tmp_path / "some")
    write_report(content, tmp_path / "all")
    assert (tmp_path / "some" / "table.md").read_text() == (tmp_path / "all" / "table.md").read_text()


def test_rows_and_seeds_without_results_are_named(content):
    with pytest.raises(ValueError, match="no results of row 'alonne'; did you mean 'alone'"):
        restrict_results(content, ["kd", "alonne"])
    with pytest.raises(ValueError, match="no results with seed 7, but with 0, 1, 2"):
        restrict_results(content, seeds=[0, 7])
    del content["cells"]["alone"]["seeds"]["2"]
    with pytest.raises(ValueError, match="no results of row 'alone' with these seeds, but with 0, 1$"):
        restrict_results(content, ["alone"], [2])
    teacher = {TEACHER: content["cells"][TEACHER]}
    with pytest.raises(ValueError, match="no results of students yet"):
        restrict_results({**content, "cells": teacher, "rows": ["kd"]})


def test_what_teaches_a_row_that_is_not_shown_is_still_no_rival(tmp_path):
    large = {"method": "plain", "student": {"backbone": "resnet20"}}
    methods = {**METHODS, "large": large, "taught": {"method": "kd", "taught_by": "large"}}
    results = ComparisonResults(tmp_path / "results.json", table_comparison(methods=methods))
    for row in ("kd", "large", "taught"):
        results.add(Cell(row, 0, {}), cell_result(row, 0.5))
    found = restrict_results(results.content, ["large"])
    assert list(_table(render_comparison(found))) == ["kd"]
    assert list(_table(render_teachers(found))) == ["large"]


def test_classes_of_different_size_have_a_column(content):
    content["cells"]["kd"]["seeds"]["1"]["last"]["mean_per_class_accuracy"] = 0.3
    row = _table(render_comparison(content))["kd"]
    assert row["test accuracy, % (mean ± standard deviation)"] == "60.00 ± 10.00"
    assert row["mean over classes, %"] == "50.00 ± 20.00"


def test_published_numbers_say_whose_they_are(content):
    content["published"] = {
        "source": "a table",
        "values": {"kd": 73.3, "sh": 75.0, "teacher": 79.42, "unknown": 1.0},
        "sources": {"sh": "a | paper"},
    }
    text = render_comparison(content)
    table = _table(text.replace("\\|", "/"))
    assert table["kd"]["published, %: a table"] == "73.30" and table["alone"]["published, %: a table"] == ""
    assert table["sh"]["published, %: a table"] == "75.00 (a / paper)" and "unknown" not in text
    assert _legend(text).endswith("ours hold out 25 % of the training images, which choose the best epoch.")
    assert _table(render_teachers(content))["teacher"]["published, %: a table"] == "79.42"
    # A file from before single rows had sources.
    content["published"] = {"source": "a table", "values": {"kd": 73.3}}
    assert _table(render_comparison(content))["kd"]["published, %: a table"] == "73.30"
    content["published"] = {"source": None, "values": {"kd": 73.3}, "sources": {"kd": "a paper"}}
    assert _table(render_comparison(content))["kd"]["published, %"] == "73.30 (a paper)"


def test_the_analysis_has_what_could_be_measured(content):
    for seed, cell in content["cells"]["sh"]["seeds"].items():
        cell["last"]["own_teacher"] = {"cka": 0.25 + 0.1 * int(seed), "agreement": 0.75}
        # Of the teacher that they were distilled from.
        cell["last"]["own_teacher"]["mixed_accuracy"] = 0.625
        cell["last"]["mixed_accuracy"] = 0.1
    content["cells"]["kd"]["seeds"]["0"]["last"]["mixed_accuracy"] = 0.55
    text = render_analysis(content)
    kd, sh = (_table(text)[row] for row in ("kd", "sh"))
    assert kd["CKA with the teacher"] == "0.500" and kd["effective dimension"] == "3.0"
    assert kd["accuracy through the teacher's head, %"] == kd["CKA with its own teacher"] == ""
    assert (sh["CKA with its own teacher"], sh["agreement with its own teacher, %"]) == ("0.350", "75.0")
    mixed = "accuracy of both heads mixed, %"
    assert (kd[mixed], sh[mixed]) == ("55.0", "62.5") and "(1 − a) p + a p_TH" in _legend(text)


def test_networks_that_have_collapsed_are_named(content):
    assert "without directions" not in _legend(render_analysis(content))
    content["cells"]["kd"]["seeds"]["1"]["last"] |= {"effective_dimension": None, "cka": None}
    assert "One embedding for all images, and so without directions: kd with seed 1." in render_analysis(content)


def test_teachers_are_compared_with_the_ordinary_one(content):
    for seed, accuracy in enumerate((0.86, 0.88, 0.87)):
        content["cells"][f"{AROUND}kd"]["seeds"][str(seed)]["last"]["accuracy"] = accuracy
    text = render_teachers(content)
    table, difference = _table(text), "difference from teacher, points [95 % interval]"
    assert list(table) == [TEACHER, f"{AROUND}kd"]
    assert table[TEACHER]["test accuracy, % (mean ± standard deviation)"] == "90.00" and not table[TEACHER][difference]
    around = table[f"{AROUND}kd"]
    assert (around["seeds"], around["seconds"]) == ("3", "100")
    # -4, -2 and -3 points.
    assert around["test accuracy, % (mean ± standard deviation)"] == "87.00 ± 1.00"
    assert around[difference] == "-3.00 [-5.48, -0.52]"
    assert "There is one ordinary teacher, so that these intervals lack its variation." in _legend(text)


def test_teachers_are_compared_with_a_row_that_is_the_teacher_alone(content):
    options = {"method": "plain", "student": {"backbone": "resnet14"}}
    seeds = {str(seed): cell_result("alone_14", value) for seed, value in enumerate((0.89, 0.91, 0.93))}
    content["cells"]["alone_14"] = {"options": options, "seeds": seeds}
    content["cells"]["short"] = {"options": {**options, "num_train_epochs": 1}, "seeds": seeds}
    # Not trained as the teacher was.
    content["cells"]["slow"] = {"options": {**options, "learning_rate": 0.001}, "seeds": seeds}
    content["cells"]["wide"] = {
        "options": {**options, "student": {"backbone": "resnet14", "embedding_size": 9}},
        "seeds": seeds,
    }
    content["cells"]["more"] = {
        "options": {**options, "student": {"backbone": "resnet14", "projector": "linear"}},
        "seeds": seeds,
    }
    content["rows"] += ["short", "slow", "wide", "more", "alone_14"]
    text = render_teachers(content)
    table, difference = _table(text), "difference from alone_14, points [95 % interval]"
    assert list(table) == [TEACHER, "alone_14", f"{AROUND}kd"] and teachers_alone(content) == ["alone_14"]
    assert table[f"{AROUND}kd"][difference] == "-1.00 [-5.97, +3.97]" and table[TEACHER][difference] == ""
    assert "one ordinary teacher" not in _legend(text)


def test_a_teacher_is_no_rival_and_is_not_compared_with_itself(content):
    """Else it would make the p values of methods larger, and the mean of its similarities that of a copy and of strangers."""
    before = render_comparison(content)
    options = {"method": "plain", "student": {"backbone": "resnet14"}}
    for row, more in {"alone_14": {}, "long": {"num_train_epochs": 30}}.items():
        seeds = {str(seed): cell_result(row, value) for seed, value in enumerate((0.89, 0.91, 0.93))}
        content["cells"][row] = {"options": {**options, **more}, "seeds": seeds}
    content["cells"]["kd"]["options"]["taught_by"] = "long"
    content["rows"] += ["alone_14", "long"]
    found = _table(render_comparison(content))
    assert list(found) == ["alone", "kd", "sh"] and found["alone"]["p"] == _table(before)["alone"]["p"]
    assert "long" in _table(render_teachers(content))
    measured = _table(render_analysis(content))
    for row in ("alone_14", "long"):
        assert measured[row]["CKA with the teacher"] == "" and measured[row]["effective dimension"] == "3.0"
    content["baseline"] = "long"
    assert list(_table(render_comparison(content))) == ["alone", "kd", "sh", "long"]


def test_a_teacher_that_was_given_has_the_accuracy_that_its_students_saw(content):
    del content["cells"][TEACHER]
    content["comparison"]["teacher"] = {"name_or_path": "someone/teacher"}
    for cell in content["cells"]["kd"]["seeds"].values():
        cell["last"]["teacher_accuracy"] = 0.8
    table = _table(render_teachers(content))
    assert table[TEACHER]["test accuracy, % (mean ± standard deviation)"] == "80.00"
    assert table[TEACHER]["seconds"] == "" and list(table) == [TEACHER, f"{AROUND}kd"]


def test_without_teachers_there_is_no_table_of_them(tmp_path):
    results = ComparisonResults(tmp_path / "results.json", table_comparison())
    results.add(Cell("kd", 0, {}), cell_result("kd", 0.4))
    assert render_teachers(results.content) == ""
    assert (write_report(results.content, tmp_path / "report")[0]).read_text().count("±: standard deviation") == 1


def test_a_row_that_another_one_teaches_is_a_teacher_and_part_of_the_price(tmp_path):
    taught = {**METHODS, "taught": {"method": "kd", "taught_by": "alone"}}
    results = ComparisonResults(tmp_path / "results.json", table_comparison(methods=taught))
    for row, accuracy, seconds in (
        (TEACHER, 0.9, 1.0),
        ("kd", 0.5, 10.0),
        ("taught", 0.6, 10.0),
        ("alone", 0.4, 100.0),
    ):
        for seed in range(1 if row == TEACHER else 2):
            results.add(Cell(row, seed, {}), cell_result(row, accuracy + seed / 100, seconds))
    students, teachers = (_table(render(results.content)) for render in (render_comparison, render_teachers))
    assert [students[row]["seconds"] for row in ("kd", "taught", "alone")] == ["10", "110", "100"]
    assert list(teachers) == [TEACHER, "alone"] and teachers["alone"]["seconds"] == "100"


def test_the_price_of_a_row_whose_temporary_student_is_unknown(content):
    del content["cells"]["kd"]["seeds"]["1"]
    with pytest.raises(ValueError, match="have sh/seed_1, but not kd/seed_1"):
        render_comparison(content)


def test_the_report_is_tables_and_plots(content, tmp_path):
    files = write_report(content, tmp_path / "report")
    assert {path.name for path in files} == {
        "table.md",
        "accuracy.png",
        "curves.png",
        "losses.png",
        "reliability.png",
        "similarity.png",
    }
    assert all(path.stat().st_size > 10_000 for path in files if path.suffix == ".png")
    text = files[0].read_text()
    assert all(render(content) in text for render in (render_comparison, render_teachers, render_analysis))


def test_similarities_have_panels_of_heads_and_alignments(content, tmp_path, drawn):
    for cell in content["cells"]["sh"]["seeds"].values():
        cell["last"] |= {"head_similarity": 1.0, "alignment": 0.5, "teacher_alignment": 0.25}
    write_report(content, tmp_path)
    panels = {axes.get_title(loc="left").replace("\n", " "): axes for axes in drawn["similarity.png"].axes}
    panels.pop("", None)
    assert list(panels) == [
        "CKA with the teacher",
        "agreement with the teacher, %",
        "similarity of the heads",
        "alignment with its own classes",
        "alignment with the teacher's classes",
        "effective dimension",
    ]
    texts = [text.get_text() for text in panels["similarity of the heads"].texts]
    assert texts == ["-", "-", "1.00"]
    assert panels["agreement with the teacher, %"].texts[0].get_text() == "50.00"


def test_reliability_is_that_of_all_seeds(content, tmp_path, drawn):
    write_report(content, tmp_path)
    figure = drawn["reliability.png"]
    assert figure.get_suptitle() == "Calibration: bins of all seeds together, ECE their mean"
    # kd: 50, 60 and 70 of 100, always 80 sure.
    np.testing.assert_allclose(figure.axes[1].collections[0].get_offsets(), [(80, 60)])
    assert figure.axes[1].texts[0].get_text() == "ECE 20.00"


def test_losses_are_drawn_of_the_rows_that_have_them(content, tmp_path, drawn):
    del content["cells"]["kd"]["seeds"]["1"]["loss_curve"]
    write_report(content, tmp_path)
    (axes,) = drawn["losses.png"].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["alone (1.00)", "sh (1.00)"]
    # Logged more often with one seed.
    content["cells"]["sh"]["seeds"]["1"]["loss_curve"] = [[0.5, 3.0], [1.0, 2.0], [2.0, 1.0]]
    write_report(content, tmp_path)
    (axes,) = drawn["losses.png"].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["alone (1.00)"]
    for row in content["cells"].values():
        for cell in row["seeds"].values():
            cell.pop("loss_curve", None)
    assert "losses.png" not in {path.name for path in write_report(content, tmp_path)}


def test_a_report_without_the_baseline_yet(tmp_path):
    results = ComparisonResults(tmp_path / "results.json", table_comparison())
    results.add(Cell("alone", 0, {}), cell_result("alone", 0.4, memory=None))
    assert "accuracy.png" not in {path.name for path in write_report(results.content, tmp_path / "report")}
    row = _table(render_comparison(results.content))["alone"]
    assert row["test accuracy, % (mean ± standard deviation)"] == "40.00" and row["memory, MiB"] == ""
