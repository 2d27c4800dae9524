"""DeepSpeed ZeRO 1 and 2 on two processes against DDP, where DeepSpeed is installed (Linux); on CPUs joined by gloo."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from processes import ONE, ROOT, TWO, launch
from safetensors.torch import load_file


pytest.importorskip("deepspeed")

WORKER = Path(__file__).with_name("split_worker.py")
CONFIGS = ROOT / "examples" / "accelerate_configs"
ZERO1 = ["--config_file", str(CONFIGS / "deepspeed_zero1.yaml"), "--num_processes", "2"]
STAGES = {"zero1": ZERO1, "zero2": [*ZERO1, "--zero_stage", "2"]}
MODES = ("distill", "faces", "frozen", "chunked", "contrastive", "uneven", "statistics", "student_head")

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def _report(folder: Path, rank: int = 0) -> dict:
    return json.loads((folder / f"report_{rank}.json").read_text())


def _assert_close(found: Path, expected: Path, tolerance: float = 1e-6) -> None:
    for rank in (0, 1):
        left, right = (load_file(folder / f"weights_{rank}.safetensors") for folder in (found, expected))
        assert left.keys() == right.keys()
        for name, value in right.items():
            torch.testing.assert_close(left[name], value, rtol=tolerance, atol=tolerance, msg=name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("deepspeed")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DS_ACCELERATOR", "cpu")
        launch(WORKER, TWO, root / "ddp", "whole", 8, *MODES)
        for stage, launcher in STAGES.items():
            launch(WORKER, launcher, root / stage, "launched", 8, *MODES)
        yield root


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("mode", MODES)
def test_deepspeed_equals_data_parallelism(stage, mode, runs):
    found, ddp = _report(runs / stage / mode), _report(runs / "ddp" / mode)
    assert found["optimizer"] == "DeepSpeedZeroOptimizer" and ddp["optimizer"] == "SGD"
    assert found["losses"] == pytest.approx(ddp["losses"], rel=1e-6)
    assert found["norms"] == pytest.approx(ddp["norms"], rel=1e-5)
    for name in {"evaluated", "verified", "cosines"} & ddp.keys():
        assert found[name] == pytest.approx(ddp[name], rel=1e-5), name
    _assert_close(runs / stage / mode, runs / "ddp" / mode)


def _copy(source: Path, folder: Path) -> Path:
    run = folder / "resume" / "run"
    shutil.copytree(source / "distill" / "run", run)
    shutil.rmtree(run / "checkpoint-8")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "finished": False}))
    return run


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_goes_on(stage, runs, tmp_path):
    _copy(runs / stage, tmp_path)
    launch(WORKER, STAGES[stage], tmp_path, "launched", 8, "resume")
    _assert_close(tmp_path / "resume", runs / stage / "distill", tolerance=0.0)


def test_a_run_does_not_go_on_where_its_optimizer_cannot_be_read(runs, tmp_path):
    _copy(runs / "zero1", tmp_path)
    with pytest.raises(AssertionError, match="checkpoint-4 has no optimizer.pt"):
        launch(WORKER, ONE, tmp_path, "whole", 16, "resume")


def test_the_configuration_with_autocast_rounds_no_weight(runs, tmp_path):
    launcher = ["--config_file", str(CONFIGS / "deepspeed_zero2.yaml"), "--num_processes", "2"]
    launch(WORKER, launcher, tmp_path, "launched", 8, "distill")
    found, ddp = _report(tmp_path / "distill")["losses"], _report(runs / "ddp" / "distill")["losses"]
    assert found == pytest.approx(ddp, rel=2e-3) and found != pytest.approx(ddp, rel=1e-6)
    weights = load_file(tmp_path / "distill" / "run" / "checkpoint-8" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert any(not torch.equal(value, value.bfloat16().float()) for value in weights.values())


@pytest.mark.parametrize(
    "options, message",
    [
        (["--zero_stage", "3"], "ZeRO stage 3 is not supported; use stage 1 or 2"),
        (["--mixed_precision", "bf16"], "DeepSpeed would convert the student's weights for `bf16`"),
    ],
)
def test_other_ways_are_refused(options, message, tmp_path, monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    with pytest.raises(AssertionError, match=message):
        launch(WORKER, [*ZERO1, *options], tmp_path, "launched", 8, "frozen")
