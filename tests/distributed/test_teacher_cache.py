"""A teacher cache filled by two processes on the CPU, started by the real launcher, against one."""

from pathlib import Path

import numpy as np
import pytest
from processes import ONE, TWO, launch, run_launched
from safetensors.numpy import load_file


WORKER = Path(__file__).with_name("cache_worker.py")

pytestmark = pytest.mark.distributed


def _files(folder: Path) -> dict[str, np.ndarray]:
    (cache,) = (path for path in (folder / "cache").iterdir() if path.is_dir())
    return {path.name: load_file(path)["teacher"] for path in sorted(cache.glob("rows-*.safetensors"))}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    return folder, launch(WORKER, ONE, folder / "one", 8), launch(WORKER, TWO, folder / "two", 4)


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
    two = launch(WORKER, TWO, tmp_path / "again", 4)
    assert all(12 <= report["views"] < 24 for report in two)
    assert two[0]["losses"] == pytest.approx(one["losses"], rel=1e-5)


def test_a_file_that_cannot_be_written_stops_all_processes(tmp_path):
    done = run_launched(TWO, WORKER, tmp_path, 4, "broken", check=False)
    assert done.returncode != 0
    assert done.stderr.count("TeacherCacheError") >= 2 and "No space left on device" in done.stderr
