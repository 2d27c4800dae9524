"""Two processes on the CPU, started by the real launcher, against one."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from processes import ONE, TWO, launch
from safetensors.torch import load_file
from toys import ToyImages, noise_pairs

from headshare_hf import HeadShareForImageClassification, HeadShareImageProcessor
from headshare_hf.evaluation import Verifier, verification_metrics


pytestmark = pytest.mark.distributed


def _launch(folder: Path, batch: int, launcher: list[str], mode: str = "start", **given) -> list[dict]:
    return launch(Path(__file__).with_name("worker.py"), launcher, folder, batch, mode, **given)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    one = _launch(folder / "one", 16, ONE)
    # Processes that share nothing from before, not even the order of their sets.
    two = _launch(folder / "two", 8, TWO, python=sys.executable)
    return folder, one, two


def test_the_launcher_starts_what_it_is_told(runs):
    _, one, two = runs
    assert [report["world_size"] for report in one] == [1]
    assert [report["world_size"] for report in two] == [2, 2]
    assert {report["backend"] for report in two} == {"gloo"}


def test_each_process_sees_its_half_of_the_data(runs):
    _, _, (left, right) = runs
    for epoch in (0, 1):
        halves = [set(report["seen"][epoch * 64 : (epoch + 1) * 64]) for report in (left, right)]
        assert all(len(half) == 64 for half in halves)
        assert halves[0] | halves[1] == set(range(128))


def _assert_close(left: Path, right: Path) -> None:
    expected, found = load_file(left), load_file(right)
    assert expected.keys() == found.keys() and any(name.startswith("projector.") for name in expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_two_processes_equal_one(runs):
    folder, (one,), (left, right) = runs
    assert left["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert left["parts"] == pytest.approx(one["parts"], rel=1e-4)
    assert left["accuracy"] == right["accuracy"] == one["accuracy"]
    _assert_close(folder / "one" / "weights_0.safetensors", folder / "two" / "weights_0.safetensors")
    _assert_close(folder / "two" / "weights_0.safetensors", folder / "two" / "weights_1.safetensors")


def test_two_processes_resume(runs, tmp_path):
    folder, _, _ = runs
    shutil.copytree(folder / "two" / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint-16")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**record, "finished": False}))
    _launch(tmp_path, 8, TWO, mode="resume", python=sys.executable)
    expected, found = (load_file(base / "weights_0.safetensors") for base in (folder / "two", tmp_path))
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_shared_class_centers_in_two_processes_equal_one(tmp_path):
    (one,) = _launch(tmp_path / "one", 16, ONE, mode="faces")
    left, right = _launch(tmp_path / "two", 8, TWO, mode="faces")
    assert left["losses"] == pytest.approx(one["losses"], rel=1e-5)
    expected = load_file(tmp_path / "one" / "weights_0.safetensors")
    for rank in (0, 1):
        found = load_file(tmp_path / "two" / f"weights_{rank}.safetensors")
        assert expected.keys() == found.keys() and "classifier.weight" in found
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)
    # The main process alone has the embeddings.
    assert left["verified"] == pytest.approx(one["verified"], abs=0.03) and len(one["verified"]) >= 3
    assert right["verified"] == {}


def test_contrastive_memories_in_two_processes_equal_one_and_resume(tmp_path):
    (one,) = _launch(tmp_path / "one", 16, ONE, mode="contrastive")
    left, right = _launch(tmp_path / "two", 8, TWO, mode="contrastive")
    assert left["losses"] == right["losses"] == pytest.approx(one["losses"], rel=1e-5)
    expected = load_file(tmp_path / "one" / "weights_0.safetensors")
    weights = [load_file(tmp_path / "two" / f"weights_{rank}.safetensors") for rank in (0, 1)]
    for name, value in expected.items():
        torch.testing.assert_close(weights[0][name], value, rtol=1e-4, atol=1e-5, msg=name)
        assert torch.equal(weights[0][name], weights[1][name]), name
    assert {"student_memory", "teacher_memory", "normalization", "teacher_embedding.weight"} <= expected.keys()
    cut = tmp_path / "cut" / "run"
    shutil.copytree(tmp_path / "two" / "run", cut, ignore=shutil.ignore_patterns("checkpoint-8"))
    _launch(tmp_path / "cut", 8, TWO, mode="contrastive_resume")
    for rank in (0, 1):
        found = load_file(tmp_path / "cut" / f"weights_{rank}.safetensors")
        assert all(torch.equal(value, found[name]) for name, value in weights[0].items())


def test_two_processes_evaluate_the_weights_that_are_saved(tmp_path):
    """Each process has batch statistics of its own after the last step; those of the first one are saved."""
    left, _ = _launch(tmp_path, 8, TWO, mode="statistics")
    weights = [load_file(tmp_path / f"weights_{rank}.safetensors") for rank in (0, 1)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    student = HeadShareForImageClassification.from_pretrained(tmp_path / "run").eval()
    processor = HeadShareImageProcessor(size={"height": 16, "width": 16})
    found = verification_metrics(Verifier([noise_pairs()], processor)(student))
    data = ToyImages(40, seed=1)
    correct = (student(data.images).logits.argmax(1) == data.labels).float().mean().item()
    assert left["eval_accuracy"] == pytest.approx(correct, abs=1e-6)
    for name in ("noise_accuracy", "noise_auc"):
        assert left[f"eval_{name}"] == pytest.approx(found[name], abs=1e-6)
