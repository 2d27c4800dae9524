"""What the site says of speed comes from the stored file, and says it of what was measured."""

import copy
import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from headshare_hf.trainer.large_heads import CHUNKED_FROM


ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
for folder in (ROOT / "docs" / "tools", ROOT / "benchmarks"):
    sys.path.append(str(folder))
tables, text, growth, class_counts = map(
    importlib.import_module, ("benchmark_tables", "benchmark_text", "benchmark_growth", "class_counts")
)
STORED = json.loads((RESULTS / "benchmarks.json").read_text(encoding="utf-8"))


def _row(name, seconds, low=1.0, high=1.0):
    ratios = {"ratio": (low + high) / 2, "ratio_low": low, "ratio_high": high, "cpu_ratio": 1.0}
    return {"name": name, "median_s": seconds, **ratios}


def _table(*rows, **more):
    machine = {"processor": "P", "threads": 2, "device": "cpu", "torch": "2", "allocator": "usual"}
    empty = {key: {} for key in ("targets", "limits", "agreement", "columns")}
    fixed = {"title": "A step: of images", "notes": [], "rounds": 3, "machine": machine, "against": "insightface"}
    return {**fixed, **empty, "rows": list(rows), **more}


def test_the_page_is_that_of_the_stored_file():
    # Otherwise: python benchmarks/run_all.py --page
    assert (RESULTS / "benchmarks.md").read_text(encoding="utf-8") == tables.page(STORED)


def test_a_page_of_few_tables_has_no_empty_parts():
    few = {"command": "make bench", "tables": {"step": _table(_row("base", 2.0)), "of another form": {}}}
    assert re.findall(r"^## (.+)$", tables.page(few), flags=re.MULTILINE) == ["Time", "Targets", "Tables"]


def test_a_target_is_met_or_not_and_says_against_whom():
    measured = _table(
        _row("base", 2.0),
        _row("ours", 1.0, 1.9, 2.1),
        targets={"ours": 2.05},
        limits={"MB": {"ours": 10.0, "base": 5.0}, "median_s": {"ours": 2.0}},
        columns={"MB": {"ours": 11.0}},
    )
    found = tables.targets({"tables": {"step": measured}}).splitlines()[2:]
    assert found[:3] == [
        "| A step | ours: ratio | 2.00 | 1.90 to 2.10 | 1.00 | ≥ 2.05 | **not met**, by less than its noise | insightface | usual |",
        "| A step | ours: MB | 11 |  |  | ≤ 10 | **not met** | insightface | usual |",
        "| A step | ours: time | 1 s |  |  | ≤ 2 s | met | insightface | usual |",
    ]
    assert "11 (≤ 10)" in tables.comparisons({"tables": {"step": measured}})
    assert "usual thresholds of glibc; compared with: insightface;" in tables.comparisons(
        {"tables": {"step": measured}}
    )


def test_every_table_says_which_code_it_measured():
    old, new = (
        _table(_row("base", 2.0), targets={"base": 1.0}, title=f"{name}: of images") for name in ("Old", "New")
    )
    new["machine"] = {**new["machine"], "code": "0.1+abc"}
    stored = {"command": "make bench", "tables": {"old": old, "new": new}}
    first, second = tables.comparisons(stored).split("**New")
    assert first.rstrip().endswith("measured with an earlier version of the code.")
    assert second.endswith("measured with version 0.1+abc of the code.")
    assert tables.targets(stored).splitlines()[-1] == (
        "Measured with several versions of the code: an earlier version (Old), version 0.1+abc (New)."
    )
    assert tables.targets({"tables": {"new": new}}).endswith("\n\nMeasured with version 0.1+abc of the code.")
    scripts = {"a.py": {"options": "", "seconds": 1.0, "tables": ["old", "new"]}}
    assert "| `a.py` | `` | 1 | an earlier version, version 0.1+abc |" in tables.seconds(
        {**stored, "scripts": scripts}
    )


def test_tables_of_another_form_say_which_code_they_measured():
    stored = _curves(1, 10, 100, 2000)
    assert growth.growth(stored).endswith("\n\nMeasured with an earlier version of the code.")
    stored["tables"]["growth"]["machine"] = {"code": "0.1+abc"}
    assert growth.growth(stored).endswith("\n\nMeasured with version 0.1+abc of the code.")


def test_the_time_of_all_scripts_is_shown_and_too_much_of_it_is_said():
    scripts = {"a.py": {"options": "--rounds 3", "seconds": 700.0}, "b.py": {"options": "", "seconds": 400.0}}
    stored = {"command": "make bench", "scripts": scripts}
    found = tables.seconds(stored)
    assert "`make bench` took 18.3 minutes." in found and "| all |  | 1100 |" in found
    scripts["a.py"]["seconds"] = 900.0
    assert "21.7 minutes, **more than the 20 that are aimed at**" in tables.seconds(stored)
    stored = {**stored, "scripts": {"a.py": {**scripts["a.py"], "tables": ["a"]}}, "tables": {"a": {}, "older": {}}}
    assert "Of `make bench` these took 15.0 minutes; other tables are of an earlier version." in tables.seconds(stored)


def test_the_time_of_scripts_that_several_commands_ran_is_their_sum():
    again = 'make bench BENCH_OPTIONS="--only b.py"'
    scripts = {
        name: {"command": command, "options": "", "seconds": 600.0, "tables": [name]}
        for name, command in (("a", "make bench"), ("b", again), ("c", "make bench"))
    }
    stored = {"command": f"make bench; {again}", "scripts": scripts, "tables": {name: {} for name in scripts}}
    assert tables.seconds(stored).startswith(
        f"These scripts, last run by `make bench` and by `{again}`, took 30.0 minutes together, **more than the 20"
    )
    stored["tables"]["older"] = {}
    assert tables.seconds(stored).startswith(f"Of `make bench` and `{again}` these took 30.0 minutes; other tables")


def test_compiled_steps_are_compared_with_their_own_form():
    rows = _row("base", 9.0), _row("float32", 3.0), _row("float32, compiled", 2.0)
    other = _table(_row("teacher, compiled", 1.0))
    found = text.compiled_steps({"tables": {"step_a": _table(*rows), "inference_a": other, "growth": {"curves": {}}}})
    assert found == "Of a step, once it is compiled: A step: of images (float32): 1.50 times as fast."
    assert text.compiled_steps({"tables": {"step_a": _table(*rows[:2])}}) == ""


@pytest.mark.parametrize("high, said", [(0.98, "which is measurable"), (1.011, "which is within the noise")])
def test_the_cost_of_the_trainer_is_measurable_where_it_is_apart_from_the_control(high, said):
    rows = _row("bare loop", 0.05), _row("trainer, lean", 0.0517, 0.95, high), _row("control", 0.05, 1.01, 1.02)
    table = _table(*rows, columns={"ms over the bare loop": {"trainer, lean": 1.7}})
    found = text.trainer_cost({"tables": {"trainer_resnet8": table}})
    assert "1.70 ms more than the 50.00 ms" in found and found.endswith(f"{said}.")


def test_forms_that_are_slower_than_eager_pytorch_are_named():
    rows = _row("student, eager", 0.1), _row("student, ONNX", 0.05), _row("student, ONNX int8", 0.15)
    table = _table(*rows, title="Inference, a and b, batch 1")
    found = text.slow_forms({"tables": {"inference_b_1": table}})
    assert (
        found.endswith("ONNX int8 for the student of a and b, batch 1, 1.50 times as long.")
        and "ONNX for" not in found
    )


def test_chunks_are_summed_up_by_number_of_classes():
    rows = _row("KL, 1000 classes", 1.0, 0.8, 0.8), _row("CE, 1000 classes", 1.0, 1.2, 1.2)
    columns = {
        "logits held, MB": {"KL, 1000 classes": 9.0, "CE, 1000 classes": 20.0},
        "chunks, MB": {"KL, 1000 classes": 4.0, "CE, 1000 classes": 5.0},
    }
    table = _table(*rows, title="Chunks, 64 images", columns=columns)
    found = text.chunk_counts({"tables": {"class_counts_64_usual": table}})
    assert "| 64 images | 1,000 | 0.80 to 1.20 | 5 to 15 |\n\nMeasured with an earlier version" in found
    assert text.chunk_counts({"tables": {}}) == ""


def test_the_number_of_classes_at_which_the_trainer_switches_is_measured():
    assert CHUNKED_FROM in class_counts.CLASSES


def _curves(*seconds):
    points = [
        {"value": 10**power, "seconds": value, "fastest": value, "slowest": value, "megabytes": 100.0}
        for power, value in enumerate(seconds, 3)
    ]
    forms = {"held": points[:-1], "chunks": points}
    split = [{**points[0], "value": value} for value in (1, 2)]
    curves = {"classes": forms, "embedding": {"held": []}, "processes": {"split": split}}
    return {"tables": {"growth": {"curves": curves, "sizes": {"images": 64, "width": 512, "classes": 10_000}}}}


def test_a_bend_is_named_with_its_exponents_and_its_cause_is_marked():
    found = growth.bends(_curves(1, 10, 100, 2000))
    (bend,) = [line for line in found.splitlines() if line.startswith("- Time, chunks")]
    assert "at 100,000 the exponent goes from 1.00 to 1.30. Explanation, not measured: a chunk stays" in bend
    assert "Time, held" not in found and "is not part of the 100 MB" in found


def test_a_bend_within_the_scatter_of_the_rounds_is_none():
    stored = _curves(1, 10, 100, 2000)
    point = stored["tables"]["growth"]["curves"]["classes"]["chunks"][-1]
    point["fastest"] = 900
    assert "Time, chunks" not in growth.bends(stored)


def test_every_form_that_is_measured_has_explanations():
    assert {form for forms in STORED["tables"]["growth"]["curves"].values() for form in forms} - {"split"} == {
        form for _, form in growth.CAUSES
    }
    assert growth.bends(copy.deepcopy(STORED)).count("\n") > 3


def test_the_guide_has_no_measured_number_of_its_own():
    guide = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8").replace("2201.06945", "")
    shown = set(re.findall(r"<!-- table: (\w+) -->", guide))
    expected = (
        "bends",
        "chunk_counts",
        "contrastive_bound",
        "growth",
        "seconds",
        "slow_forms",
        "targets",
        "trainer_cost",
    )
    assert shown == {f"benchmark_{name}" for name in expected}
    assert not re.search(r"\d\.\d|\d ms|\d MB", guide) and f"from {CHUNKED_FROM:,} classes on" in guide
