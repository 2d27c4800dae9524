"""What runs all benchmarks: its options, and the files that it keeps."""

import json

import growth
import pytest
import run_all
import training_step
from growth_plot import draw, slopes
from run_all import RESULTS, asked, command, forget_others, keep, parse


RIVALS = ["--reference", "/a/HeadSharingKD", "--insightface", "/b/insightface"]


@pytest.mark.parametrize("more", [[], ["--output", str(RESULTS)], ["--output", str(RESULTS.with_name("other.json"))]])
def test_a_smoke_test_does_not_overwrite_what_was_measured(more, capsys):
    with pytest.raises(SystemExit):
        parse(["--quick", *more])
    assert "--quick measures nothing" in capsys.readouterr().err


def test_a_smoke_test_elsewhere_is_fine(tmp_path):
    assert parse(["--quick", "--output", str(tmp_path / "b.json")]).quick
    assert parse([]).output == RESULTS


@pytest.mark.parametrize("script", run_all.SCRIPTS)
def test_checkouts_are_given_to_those_that_read_them(script, tmp_path):
    found = command(script, tmp_path / "tables.json", parse(RIVALS))
    assert ("--reference" in found) == (script in ("training_step.py", "contrastive.py"))
    assert ("--insightface" in found) == (script in ("ijb.py", "pairs.py"))
    text = (run_all.HERE / script).read_text()
    rival = run_all.RIVALS_OF.get(script)
    assert ("rival=" in text) == (rival is not None) and (rival is None or f'rival="{rival}"' in text)


def test_the_command_names_options_and_no_folders_of_this_machine(tmp_path):
    assert asked(parse([])) == "make bench"
    expected = 'make bench BENCH_OPTIONS="--reference HeadSharingKD --insightface insightface"'
    assert asked(parse(RIVALS)) == expected
    alone = asked(parse(["--only", "ijb.py", "pairs.py", "--device", "cpu"]))
    assert alone == 'make bench BENCH_OPTIONS="--only ijb.py pairs.py --device cpu"'


def _keep(folder, script, tables, *more):
    made = folder / "made.json"
    made.write_text(json.dumps(dict.fromkeys(tables, {"title": script})))
    arguments = parse(["--output", str(folder / "all.json"), *more])
    keep(made, script, 12.34, arguments)
    return json.loads(arguments.output.read_text())


def _page(monkeypatch):
    monkeypatch.setattr(run_all, "page", lambda stored: f"{sorted(stored['tables'])}")


def test_tables_are_kept_with_the_time_and_the_options_of_their_script(tmp_path, monkeypatch):
    _page(monkeypatch)
    stored = _keep(tmp_path, "pairs.py", ["pairs"], *RIVALS)
    assert stored["command"].startswith("make bench BENCH_OPTIONS=")
    about = {
        "command": stored["command"],
        "options": "--insightface insightface",
        "seconds": 12.3,
        "tables": ["pairs"],
    }
    assert stored["scripts"] == {"pairs.py": about}
    later = _keep(tmp_path, "ijb.py", ["ijb"], "--only", "ijb.py")
    assert set(later["tables"]) == {"pairs", "ijb"}
    assert (tmp_path / "all.md").read_text() == "['ijb', 'pairs']"


def test_a_script_that_is_run_again_alone_leaves_the_others_their_command(tmp_path, monkeypatch):
    _page(monkeypatch)
    first = _keep(tmp_path, "pairs.py", ["pairs"], *RIVALS)["command"]
    _keep(tmp_path, "ijb.py", ["ijb"], *RIVALS)
    stored = _keep(tmp_path, "pairs.py", ["pairs"], "--only", "pairs.py", "ijb.py")
    alone = 'make bench BENCH_OPTIONS="--only pairs.py ijb.py"'
    assert {name: about["command"] for name, about in stored["scripts"].items()} == {
        "ijb.py": first,
        "pairs.py": alone,
    }
    assert stored["command"] == f"{first}; {alone}"
    assert _keep(tmp_path, "ijb.py", ["ijb"], "--only", "pairs.py", "ijb.py")["command"] == alone


def test_scripts_that_were_stored_with_one_command_keep_it(tmp_path, monkeypatch):
    _page(monkeypatch)
    old = {"options": "", "seconds": 1.0, "tables": ["ijb"]}
    known = {"command": "make bench", "scripts": {"ijb.py": old}, "tables": {"ijb": {"title": "old"}}}
    (tmp_path / "all.json").write_text(json.dumps(known))
    stored = _keep(tmp_path, "pairs.py", ["pairs"], "--only", "pairs.py")
    assert stored["scripts"]["ijb.py"] == {**old, "command": "make bench"}
    assert stored["command"] == 'make bench; make bench BENCH_OPTIONS="--only pairs.py"'


def test_tables_that_nobody_makes_any_more_go_away(tmp_path, monkeypatch):
    _page(monkeypatch)
    _keep(tmp_path, "pairs.py", ["pairs", "old"])
    assert set(_keep(tmp_path, "pairs.py", ["pairs"])["tables"]) == {"pairs"}
    _keep(tmp_path, "removed.py" if "removed.py" in run_all.SCRIPTS else "ijb.py", ["ijb"])
    stored = json.loads((tmp_path / "all.json").read_text())
    stored["tables"]["of long ago"] = {}
    (tmp_path / "all.json").write_text(json.dumps(stored))
    forget_others(tmp_path / "all.json")
    assert set(json.loads((tmp_path / "all.json").read_text())["tables"]) == {"pairs", "ijb"}


def test_float32_is_held_to_its_rounding():
    setting = object.__new__(training_step.Setting)
    setting.arguments = parse([])
    setting.arguments.device = "cpu"
    large, small = training_step.ALLOWED.values()
    assert large == (1e-5, 1e-5) and small == (1e-5, 1e-3)
    assert setting.allowed("stored, float32, all switches, compiled", large) == 1e-5
    assert setting.allowed("float32", small) == 1e-5 and setting.allowed("float32, folded", small) == 1e-3
    assert setting.allowed("bfloat16, all switches", large) == 2e-2
    setting.arguments.device = "cuda"
    assert setting.allowed("float32", large) == 1e-3


def test_the_exponent_of_a_segment():
    points = [{"value": value, "seconds": seconds, "megabytes": 1.0} for value, seconds in ((1, 1), (2, 4), (4, 8))]
    assert slopes(points, "seconds") == pytest.approx([2, 1]) and slopes(points, "megabytes") == [0, 0]


def test_the_picture_of_growth_is_drawn(tmp_path):
    points = [{"value": value, "seconds": 0.1 * value, "megabytes": 5.0} for value in (16, 32, 64)]
    draw(dict.fromkeys(growth.SWEEPS, {"step": points}), growth.LABELS, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_the_gradient_of_the_class_centers_is_not_held_before_it_is_counted(monkeypatch):
    heads = []
    create = growth.create_head
    monkeypatch.setattr(growth, "create_head", lambda *options: heads.append(create(*options)) or heads[-1])
    growth.head_step("chunks", 50, 8, "cpu")()
    assert [head.weight.grad for head in heads] == [None, None]
