"""What the benchmarks share."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import harness
import harness_table
import pytest
import torch
from harness import Case, agree, compare, parser, prepare, report, use_reference
from harness_memory import memory_of, peak_memory
from harness_table import add_table, time_unit


FOLDER = Path(__file__).parents[2] / "benchmarks"


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self):
        self.now = 0.0

    def taking(self, *seconds):
        """A function that takes these times, call by call."""
        left = iter(seconds)

        def run():
            self.now += next(left)

        return run


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(
        harness, "time", SimpleNamespace(perf_counter=lambda: clock.now, process_time=lambda: clock.now)
    )
    return clock


def test_ratios_are_taken_round_by_round_against_the_first_case(clock):
    slow = iter((9, 9, 4, 4.4, 4, 3.6, 8, 8))
    cases = [Case("slow", lambda: clock.taking(next(slow))()), Case("fast", clock.taking(9, 1, 2, 2))]
    rows = compare(cases, rounds=3, per=2)
    assert [row.name for row in rows] == ["slow", "fast", "slow (control)"]
    base, fast, control = rows
    assert base.ratio == base.ratio_low == base.ratio_high == 1
    # In the rounds: 4 / 1, 3.6 / 2 (the control ran first there) and 8 / 2.
    assert (fast.ratio, fast.ratio_low, fast.ratio_high) == pytest.approx((4, 2.9, 4))
    assert (fast.min_s, fast.median_s, fast.max_s) == (0.5, 1, 1) and fast.cpu_ratio == fast.ratio
    assert control.ratio == pytest.approx(3.6 / 4, rel=0.1)


def test_a_smaller_run_is_taken_off(clock):
    cases = [
        Case("slow", clock.taking(*[10] * 4), clock.taking(*[2] * 4)),
        Case("fast", clock.taking(*[7] * 2), clock.taking(*[3] * 2)),
    ]
    rows = compare(cases, rounds=1, per=4)
    assert [(row.median_s, row.ratio) for row in rows] == [(2, 1), (1, 2), (2, 1)]


def test_rounds_alternate_in_their_order_and_warm_up_first():
    calls = []
    compare([Case("a", lambda: calls.append("a")), Case("b", lambda: calls.append("b"))], rounds=2, warmup=1)
    assert "".join(calls) == "aba" + "aba" + "aba"
    calls.clear()
    cases = [Case(name, lambda name=name: calls.append(name)) for name in "abc"]
    compare(cases, rounds=1, warmup=1)
    assert "".join(calls) == "acba" + "abca"


def test_output_of_what_is_measured_is_not_shown(capsys):
    compare([Case("loud", lambda: sys.stdout.write("epoch 1"))], rounds=1)
    assert capsys.readouterr().out == ""


def test_numbers_that_agree_give_their_difference():
    assert agree("loss", [1.0, 2.0], torch.tensor([1.0, 2.002]), 1e-2) == pytest.approx(0.001, rel=1e-2)
    assert agree("loss", 0.0, 0.0, 1e-12) == 0


def test_numbers_that_differ_end_the_benchmark():
    with pytest.raises(SystemExit, match=r"loss of step 3: the two sides differ by 5\.0e-01, more than 1e-05"):
        agree("loss of step 3", [1.5], [1.0], 1e-5)
    with pytest.raises(SystemExit, match="pixels: the two sides differ by nan"):
        agree("pixels", float("nan"), 1.0, 1e-5)
    with pytest.raises(SystemExit, match="pixels: 2 numbers against 1"):
        agree("pixels", [1.0, 1.0], [1.0], 1e-5)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")
def test_memory_is_the_peak_above_what_was_held():
    held = torch.ones(4_000_000)
    # 40 MB at once, 16 of them twice.
    found = memory_of(lambda: (held * 2).add(torch.ones(2_000_000).sum()))
    assert 30 < found < 60


def test_memory_in_a_fresh_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint('ignored')\nprint('{\"a\": ' + sys.argv[1] + '}')\n")
    assert peak_memory(script, ["2.5"]) == {"a": 2.5}
    script.write_text("raise ValueError('no such size')\n")
    with pytest.raises(SystemExit, match=r"script.py 5 failed:\n[\s\S]*no such size"):
        peak_memory(script, ["5"])


def test_a_checkout_of_something_else_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="is no checkout of the authors' code"):
        use_reference(tmp_path)


def _report(output, clock):
    rows = compare([Case("plain", clock.taking(*[0.002] * 4)), Case("ours", clock.taking(0.001, 0.001))], rounds=1)
    arguments = parser("").parse_args(["--quick", "--device", "cpu", "--output", str(output)])
    columns = {"memory MB": {"plain": 650.0, "ours": float("nan")}}
    report("step", "One step", rows, {"ours": 2e-7}, {"ours": 1.15}, arguments, ["a note"], columns)


def test_a_report_is_printed_and_stored_beside_others(tmp_path, capsys, clock):
    output = tmp_path / "results" / "tables.json"
    add_table(output, "other", {"title": "Other"})
    _report(output, clock)
    tables = json.loads(output.read_text())
    assert list(tables) == ["other", "step"]
    step = tables["step"]
    assert [row["name"] for row in step["rows"]] == ["plain", "ours", "plain (control)"]
    assert step["agreement"] == {"ours": 2e-7} and step["targets"] == {"ours": 1.15}
    assert step["columns"] == {"memory MB": {"plain": 650.0, "ours": None}}
    assert step["machine"]["code"] == harness_table.CODE
    assert step["machine"]["threads"] == torch.get_num_threads() and step["machine"]["torch"]
    text = capsys.readouterr().out.splitlines()
    ours = next(line for line in text if line.startswith("ours "))
    assert text[1] == "One step" and "2.0e-07" in ours and " 1.15 " in ours and "- a note" in text


def test_units_of_time():
    assert time_unit([0.2, 3.0]) == ("s", 1.0)
    assert time_unit([0.0002, 0.2]) == ("ms", 1e3)
    assert time_unit([0.0002])[0] == "us"


def test_a_script_starts_anew_with_the_thresholds_of_the_allocator():
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import harness, torch\n"
        "arguments = harness.parser('').parse_args(sys.argv[2:]); harness.prepare(arguments)\n"
        "print(os.environ['MALLOC_TRIM_THRESHOLD_'], torch.get_num_threads(), arguments.rounds)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", script, str(FOLDER), "--threads", "1", "--quick"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(8 << 30), "1", "1"]


def test_the_version_of_the_code_is_that_of_all_that_is_measured(tmp_path, monkeypatch):
    package, scripts = tmp_path / "headshare_hf", tmp_path / "benchmarks"
    for file in (package / "hub" / "onnx.py", scripts / "step.py"):
        file.parent.mkdir(parents=True)
        file.write_text("1")
    spec = SimpleNamespace(submodule_search_locations=[str(package)])
    monkeypatch.setattr(harness_table, "find_spec", lambda name: spec)
    monkeypatch.setattr(harness_table, "__file__", str(scripts / "harness_table.py"))
    found = [harness_table._code_version()]
    for file in (package / "hub" / "onnx.py", scripts / "step.py"):
        file.write_text("2")
        found.append(harness_table._code_version())
    assert len(set(found)) == 3 and all(re.fullmatch(r"0\.[\w.]+\+[0-9a-f]{12}", code) for code in found)


def test_threads_are_left_alone_where_none_are_asked_for(monkeypatch):
    from harness import ALLOCATOR

    for name, value in ALLOCATOR.items():
        monkeypatch.setenv(name, value)
    before = torch.get_num_threads()
    arguments = parser("").parse_args(["--rounds", "5"])
    prepare(arguments)
    assert torch.get_num_threads() == before and arguments.rounds == 5
