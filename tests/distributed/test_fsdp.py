"""
FSDP2 on two processes against DDP and against one process.

accelerate asks for a GPU in every process. The worker says that there is one, and everything behind that question runs as
it is, on CPUs joined by gloo.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from processes import ONE, ROOT, TWO, launch
from safetensors.torch import load_file

from headshare_hf import HeadShareForImageClassification


WORKER = Path(__file__).with_name("split_worker.py")
FSDP2 = ["--config_file", str(ROOT / "examples" / "accelerate_configs" / "fsdp2.yaml"), "--num_processes", "2"]
# Of these, half a batch is computed as in the whole one.
EQUAL = ("distill", "faces", "adam", "frozen", "chunked", "contrastive", "student_head")
MODES = (*EQUAL, "faces_bf16", "uneven", "statistics")

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def _report(folder: Path, rank: int = 0) -> dict:
    return json.loads((folder / f"report_{rank}.json").read_text())


def _weights(folder: Path, rank: int = 0) -> dict[str, torch.Tensor]:
    return load_file(folder / f"weights_{rank}.safetensors")


def _assert_close(found: Path, expected: Path, **tolerance: float) -> None:
    left, right = _weights(found), _weights(expected)
    assert left.keys() == right.keys()
    for name, value in right.items():
        torch.testing.assert_close(left[name], value, msg=f"{found.name}: {name}", **tolerance)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("fsdp")
    launch(WORKER, ONE, root / "one", "whole", 16, *EQUAL)
    launch(WORKER, TWO, root / "ddp", "whole", 8, *MODES)
    launch(WORKER, TWO, root / "fsdp", "fsdp", 8, *MODES)
    return root


def test_each_process_holds_half_of_the_student_and_the_whole_teacher(runs):
    for mode in MODES:
        for rank in (0, 1):
            report = _report(runs / "fsdp" / mode, rank)
            assert report["world_size"] == 2 and report["units"][0] == "", mode
            # Tensors with one row, and statistics, are not split.
            assert report["held"] < 0.55 * report["parameters"] and not report["teacher_split"], mode
    assert _report(runs / "fsdp" / "distill")["units"] == ["", "student.vit.embeddings", "student.vit.layers.0"]
    assert _report(runs / "ddp" / "distill")["held"] == _report(runs / "ddp" / "distill")["parameters"]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("mode", EQUAL)
def test_two_processes_equal_one(mode, kind, runs):
    """Accumulation, clipping, running means of a margin, frozen parameters and an evaluation before the training."""
    found, one = runs / kind / mode, runs / "one" / mode
    for name in ("losses", "norms"):
        assert _report(found)[name] == pytest.approx(_report(one)[name], rel=1e-5), name
    if mode != "adam":
        # Where a gradient is nothing but rounding, Adam makes a whole step of it.
        _assert_close(found, one, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("mode", MODES)
def test_fsdp_equals_data_parallelism(mode, runs):
    """In mixed precision and with batch statistics too, where two processes are not as one."""
    found, ddp = (_report(runs / kind / mode) for kind in ("fsdp", "ddp"))
    assert found["losses"] == pytest.approx(ddp["losses"], rel=1e-6)
    _assert_close(runs / "fsdp" / mode, runs / "ddp" / mode, rtol=1e-6, atol=1e-7)
    for name in {"evaluated", "verified", "cosines"} & ddp.keys():
        assert found[name] == pytest.approx(ddp[name], rel=1e-5), name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_both_processes_end_with_the_same_weights(kind, mode, runs):
    left, right = (_weights(runs / kind / mode, rank) for rank in (0, 1))
    assert all(torch.equal(value, right[name]) for name, value in left.items())


def test_a_checkpoint_is_that_of_one_process(runs):
    """The same files with the same numbers, whatever wrote them."""
    checkpoints = {kind: runs / kind / "distill" / "run" / "checkpoint-8" for kind in ("one", "fsdp")}
    files = {kind: {path.name for path in folder.iterdir()} for kind, folder in checkpoints.items()}
    ignored = {"rng_state.pth", "rng_state_0.pth", "rng_state_1.pth"}
    assert files["fsdp"] - ignored == files["one"] - ignored >= {"model.safetensors", "auxiliary.safetensors"}
    for name in ("model.safetensors", "auxiliary.safetensors"):
        found, expected = (load_file(folder / name) for folder in (checkpoints["fsdp"], checkpoints["one"]))
        assert found.keys() == expected.keys()
        assert all(torch.allclose(value, expected[key], rtol=1e-5, atol=1e-6) for key, value in found.items())
    states = [torch.load(checkpoints[kind] / "optimizer.pt", weights_only=True)["state"] for kind in ("fsdp", "one")]
    assert states[0].keys() == states[1].keys()
    for index, state in states[0].items():
        torch.testing.assert_close(state["momentum_buffer"], states[1][index]["momentum_buffer"], rtol=1e-4, atol=1e-6)


def test_what_is_saved_loads_without_fsdp(runs):
    folder = runs / "fsdp" / "faces"
    student = HeadShareForImageClassification.from_pretrained(folder / "run")
    weights = _weights(folder)
    assert student.config.architectures == ["HeadShareForImageClassification"]
    assert all(torch.equal(value, weights[name]) for name, value in student.state_dict().items())


@pytest.mark.parametrize(
    "start, how, launcher, batch, tolerance",
    [("fsdp", "fsdp", TWO, 8, 0.0), ("fsdp", "whole", ONE, 16, 1e-6), ("ddp", "fsdp", TWO, 8, 1e-7)],
)
def test_a_run_goes_on_under_fsdp_and_without(start, how, launcher, batch, tolerance, runs, tmp_path):
    """Momentum included: a run that goes on without it ends elsewhere."""
    run = tmp_path / "resume" / "run"
    shutil.copytree(runs / start / "distill" / "run", run)
    shutil.rmtree(run / "checkpoint-8")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "finished": False}))
    launch(WORKER, launcher, tmp_path, how, batch, "resume")
    _assert_close(tmp_path / "resume", runs / start / "distill", rtol=tolerance, atol=tolerance)


def test_losses_outside_of_the_network_with_blocks_that_are_split_alone(runs, tmp_path):
    launch(WORKER, TWO, tmp_path, "fsdp_blocks", 8, "chunked", "contrastive")
    for mode in ("chunked", "contrastive"):
        report = _report(tmp_path / mode)
        assert len(report["units"]) == 7 and report["units"][1].endswith("blocks.0")
        assert report["losses"] == pytest.approx(_report(runs / "ddp" / mode)["losses"], rel=1e-6)
        _assert_close(tmp_path / mode, runs / "ddp" / mode, rtol=1e-6, atol=1e-7)


def test_the_example_configuration_asks_for_what_is_supported(runs, tmp_path):
    launch(WORKER, [*FSDP2, "--mixed_precision", "no"], tmp_path, "launched", 8, "frozen")
    report = _report(tmp_path / "frozen")
    assert report["units"] == [""] and report["held"] < 0.55 * report["parameters"]
    assert report["losses"] == pytest.approx(_report(runs / "ddp" / "frozen")["losses"], rel=1e-6)
