"""A teacher cache filled by two processes on the CPU, started by the real launcher, against one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file


TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]
ONE = ["--cpu", "--num_processes", "1"]
TWO = ["--config_file", str(ROOT / "examples" / "accelerate_configs" / "two_cpu_processes.yaml")]

pytestmark = pytest.mark.distributed


def _launch(launcher: list[str], folder: Path, batch: int, mode: str = "whole") -> subprocess.CompletedProcess:
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(ROOT / "src")]),
        "OMP_NUM_THREADS": "1",
    }
    worker = str(Path(__file__).with_name("cache_worker.py"))
    command = [*LAUNCH, "--main_process_port", str(port), *launcher, worker, str(folder), str(batch), mode]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def _run(launcher: list[str], folder: Path, batch: int) -> list[dict]:
    done = _launch(launcher, folder, batch)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(path.read_text()) for path in sorted(folder.glob("report_*.json"))]


def _files(folder: Path) -> dict[str, np.ndarray]:
    (cache,) = (path for path in (folder / "cache").iterdir() if path.is_dir())
    return {path.name: load_file(path)["teacher"] for path in sorted(cache.glob("rows-*.safetensors"))}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    return folder, _run(ONE, folder / "one", 8), _run(TWO, folder / "two", 4)


def test_two_processes_fill_the_cache_of_one(runs):
    folder, (one,), two = runs
    assert one["processes"] == 1 and [report["processes"] for report in two] == [2, 2]
    expected, found = _files(folder / "one"), _files(folder / "two")
    assert list(found) == list(expected) and len(found) == 4
    for name, rows in expected.items():
        np.testing.assert_allclose(found[name], rows, rtol=1e-5, atol=1e-6)


def test_each_process_has_its_half_of_the_work(runs):
    _, (one,), two = runs
    # All 80 views and a first batch that is looked at twice. Three images that end a part make two shares of two.
    assert one["views"] >= 80
    assert all(40 <= report["views"] <= 60 for report in two)


def test_two_processes_that_read_a_cache_train_as_one(runs):
    _, (one,), (left, right) = runs
    assert left["losses"] == pytest.approx(one["losses"], rel=1e-5) and len(one["losses"]) == 10
    assert right["losses"] == [] or right["losses"] == left["losses"]


def test_a_cache_of_one_process_is_read_by_two_and_goes_on_there(runs, tmp_path):
    folder, (one,), _ = runs
    (cache,) = (path for path in (folder / "one" / "cache").iterdir() if path.is_dir())
    target = tmp_path / "again" / "cache" / cache.name
    target.mkdir(parents=True)
    for path in cache.iterdir():
        if path.name != "rows-0000000012.safetensors":
            (target / path.name).write_bytes(path.read_bytes())
    two = _run(TWO, tmp_path / "again", 4)
    assert all(12 <= report["views"] < 24 for report in two)
    assert two[0]["losses"] == pytest.approx(one["losses"], rel=1e-5)


def test_a_file_that_cannot_be_written_stops_all_processes(tmp_path):
    done = _launch(TWO, tmp_path / "broken", 4, "broken")
    assert done.returncode != 0
    assert done.stderr.count("TeacherCacheError") >= 2 and "No space left on device" in done.stderr
