"""Every benchmark runs, at tiny sizes, through the script that runs all of them; no time is looked at."""

import json
from pathlib import Path

import pytest
import run_all
from processes import run_python


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _started_by_hand() -> set[str]:
    """Scripts with a main part of their own."""
    return {path.name for path in BENCHMARKS.glob("*.py") if 'if __name__ == "__main__":' in path.read_text()}


def test_all_scripts_are_part_of_the_whole():
    assert _started_by_hand() - {"run_all.py"} == set(run_all.SCRIPTS)


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(run_all.SCRIPTS))
def test_a_benchmark_runs_and_its_tables_are_kept(script, tmp_path):
    output = tmp_path / "benchmarks.json"
    output.write_text(json.dumps({"tables": {"of another run": {}}, "scripts": {}}))
    run_python(BENCHMARKS / "run_all.py", "--quick", "--only", script, "--output", output)
    stored = json.loads(output.read_text())
    tables, about = stored["tables"], stored["scripts"][script]
    assert "of another run" in tables and set(tables) == {"of another run", *about["tables"]} and len(tables) > 1
    assert about["seconds"] > 0 and "--quick" in about["options"] and str(BENCHMARKS) not in output.read_text()
    assert all(tables[name]["machine"]["code"] for name in about["tables"])
    for name, table in tables.items():
        if "rows" in table:
            assert table["quick"] and all(row["median_s"] > 0 for row in table["rows"]), name
