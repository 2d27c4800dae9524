"""Companion losses in two processes on the CPU, started by the real launcher, against one."""

from pathlib import Path

import pytest
import torch
from processes import ONE, TWO, launch, reports
from safetensors.torch import load_file


WORKER = Path(__file__).with_name("companion_worker.py")

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("companions")
    launch(WORKER, ONE, found / "one", 16)
    launch(WORKER, TWO, found / "two", 8)
    return found


def both(folder, method):
    """What the two processes hold after the training."""
    return [load_file(folder / "two" / f"{method}_{rank}.safetensors") for rank in (0, 1)]


@pytest.mark.parametrize("method", ["th_vid", "adadistill", "fsp", "dkd"])
def test_two_processes_equal_one(folder, method):
    (one,), (left, right) = reports(folder / "one"), reports(folder / "two")
    assert left[method] == right[method] == pytest.approx(one[method], rel=1e-5)
    expected = load_file(folder / "one" / f"{method}_0.safetensors")
    first, second = both(folder, method)
    for name, value in expected.items():
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5, msg=name)
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("method", ["hint", "correlation", "srrl", "abound", "factor"])
def test_processes_stay_in_step(folder, method):
    """Of losses that relate the images of a batch, or whose layers normalise one, each process has its own part."""
    left, right = reports(folder / "two")
    assert left[method] == right[method] and len(left[method]) > 1
    first, second = both(folder, method)
    trained = [name for name in first if name.startswith("auxiliaries.")]
    assert trained
    for name, value in first.items():
        # Buffers are those of the first process; they are made equal when a step begins, and not after it.
        if "running_" not in name:
            assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("method", ["fsp", "factor"])
def test_first_stage_equals_one_process(folder, method):
    (one,), (left, right) = reports(folder / "one"), reports(folder / "two")
    stage = f"{method}, stage"
    assert left[stage] == right[stage] == pytest.approx(one[stage], rel=1e-5)
    assert one[stage][-1] < one[stage][0]


def test_class_centers_are_trained(folder):
    for path in (folder / "one" / "adadistill_0.safetensors", folder / "two" / "adadistill_1.safetensors"):
        tensors = load_file(path)
        centers = tensors["auxiliaries.companion.head.weight"]
        assert centers.norm(dim=1).min() > 0 and torch.equal(centers, tensors["student.classifier.weight"])
