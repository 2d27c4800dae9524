"""Evaluation by two processes on the CPU, started by the real launcher, against one."""

import json
from pathlib import Path

import numpy as np
import pytest
from face_sets import save_model, write_bin, write_people
from processes import ONE, ROOT, TWO, run_launched
from safetensors.numpy import load_file


SCRIPT = ROOT / "examples" / "run_verification.py"
WORKER = Path(__file__).with_name("extraction_worker.py")

pytestmark = pytest.mark.distributed


def _rows(folder: Path) -> np.ndarray:
    return np.concatenate([load_file(path)["embeddings"] for path in sorted(folder.glob("rows-*.safetensors"))])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluation")
    save_model(path / "model")
    write_bin(path / "faces.bin", write_people(path / "people"))
    return path


@pytest.fixture(scope="module")
def two(root):
    done = run_launched(TWO, WORKER, root / "model", root / "two", root / "faces.bin")
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("record")) == [
        "record: False",
        "record: True",
    ]
    return root / "two"


def test_two_processes_equal_one(root, two):
    command = ["--model", root / "model", "--pairs", root / "faces.bin", "--output", root / "one"]
    done = run_launched(ONE, SCRIPT, *command, "--batch-size", 4)
    assert done.stdout.count("# Face verification") == 1
    one_rows, two_rows = (_rows(folder / "embeddings" / "faces") for folder in (root / "one", two))
    np.testing.assert_allclose(two_rows, one_rows, rtol=1e-4, atol=1e-5)
    one, other = (json.loads((folder / "results.json").read_text())["sets"]["faces"] for folder in (root / "one", two))
    assert one["num_images"] == len(one_rows) > 40
    assert other["accuracy"] == pytest.approx(one["accuracy"], abs=0.01)
    assert other["auc"] == pytest.approx(one["auc"], abs=1e-3)


def test_one_process_goes_on_where_two_were(root, two):
    parts = sorted((two / "embeddings" / "faces").glob("rows-*.safetensors"))
    assert len(parts) > 3
    expected, kept = _rows(two / "embeddings" / "faces"), {path: path.stat().st_mtime_ns for path in parts}
    for path in (parts[1], parts[-1]):
        path.unlink()
        kept.pop(path)
    run_launched(ONE, WORKER, root / "model", two, root / "faces.bin")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    np.testing.assert_allclose(_rows(two / "embeddings" / "faces"), expected, rtol=1e-4, atol=1e-5)


def test_an_error_ends_both_processes(root, two, tmp_path):
    """One that only the main process meets, and one in the share of the other."""
    save_model(tmp_path / "model", seed=1)
    done = run_launched(TWO, WORKER, tmp_path / "model", two, root / "faces.bin", check=False)
    assert done.returncode != 0 and "has the results of another model: its weights_sha256 is" in done.stderr
    people = write_people(tmp_path / "people")
    (people / "person3" / "person3_0001.png").write_bytes(b"no image")
    done = run_launched(TWO, WORKER, root / "model", tmp_path / "out", people, check=False)
    assert done.returncode != 0 and "cannot be decoded" in done.stderr
