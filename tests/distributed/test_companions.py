"""Companion losses in two processes on the CPU, started by the real launcher, against one."""

from pathlib import Path

import pytest
import torch
from processes import ONE, TWO, launch, reports
from safetensors.torch import load_file


WORKER = Path(__file__).with_name("companion_worker.py")

pytestmark = pytest.mark.distributed


def test_two_processes_equal_one(tmp_path):
    launch(WORKER, ONE, tmp_path / "one", 16)
    launch(WORKER, TWO, tmp_path / "two", 8)
    (one,), (left, right) = reports(tmp_path / "one"), reports(tmp_path / "two")
    for method in ("th_vid", "adadistill", "fsp"):
        assert left[method] == right[method] == pytest.approx(one[method], rel=1e-5)
        expected = load_file(tmp_path / "one" / f"{method}_0.safetensors")
        first, second = (load_file(tmp_path / "two" / f"{method}_{rank}.safetensors") for rank in (0, 1))
        for name, value in expected.items():
            torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5, msg=f"{method}: {name}")
            assert torch.equal(first[name], second[name]), f"{method}: {name}"
    assert left["stage"] == right["stage"] == pytest.approx(one["stage"], rel=1e-5)
    assert one["stage"][-1] < one["stage"][0]
    centers = load_file(tmp_path / "one" / "adadistill_0.safetensors")["auxiliaries.companion.head.weight"]
    assert centers.norm(dim=1).min() > 0
