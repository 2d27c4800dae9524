"""`torch_compile` of transformers: the losses, the files and the resumed runs of a student that is not compiled."""

import shutil

import pytest
import torch
from torch._dynamo.utils import counters
from toys import ToyImages, arguments, assert_same, losses, resnet, snapshot, vit

from headshare_hf import DistillationTrainer, HeadShareForImageClassification
from headshare_hf.trainer import run_or_reuse


# Traces and differentiates as a compiler does, and generates no code: seconds instead of a minute.
TRACED = {"torch_compile": True, "torch_compile_backend": "aot_eager"}
# Generates code in C++, on a CPU.
COMPILED = {"torch_compile": True, "torch_compile_backend": "inductor"}


@pytest.fixture(autouse=True)
def without_earlier_graphs():
    """After some graphs of the same function PyTorch compiles no more of them, and says so in the log alone."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def _trainer(folder, compiler=None, pair=None, **fields) -> DistillationTrainer:
    student, teacher = pair or (resnet(seed=1), resnet("resnet14", seed=2))
    args = arguments(folder, **{"method": "th_kd", **fields}, **(compiler or {}))
    data = {"train_dataset": ToyImages(), "eval_dataset": ToyImages(24, seed=1)}
    return DistillationTrainer(student, args, teacher=teacher, **data)


def _train(folder, compiler=None, **fields) -> tuple[DistillationTrainer, dict[str, float]]:
    """One trainer after the other: what accelerate compiles is a setting of the process, the newest trainer's."""
    graphs = counters["stats"]["unique_graphs"]
    trainer = _trainer(folder, compiler, **fields)
    trainer.train()
    results = trainer.evaluate()
    assert (counters["stats"]["unique_graphs"] > graphs) == (compiler is not None)
    return trainer, {name: value for name, value in results.items() if name in ("eval_loss", "eval_accuracy")}


def _assert_close(found: DistillationTrainer, expected: DistillationTrainer) -> None:
    state = expected.student.state_dict()
    for name, value in found.student.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    "compiler",
    [
        pytest.param(TRACED, id="traced"),
        pytest.param(
            COMPILED,
            id="compiled",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
            ],
        ),
    ],
)
def test_losses_are_those_without(compiler, tmp_path):
    plain, expected = _train(tmp_path / "plain")
    compiled, found = _train(tmp_path / "compiled", compiler)
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_embedding_of_a_foreign_student_is_the_same(tmp_path):
    """It is taken from inside of the network, and goes through a projector into the teacher's head."""

    def pair():
        return vit(seed=1), vit(seed=2, hidden_size=48)

    fields = {"method": "th_kde", "projector": "linear"}
    plain, _ = _train(tmp_path / "plain", pair=pair(), **fields)
    compiled, _ = _train(tmp_path / "compiled", TRACED, pair=pair(), **fields)
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)
    _assert_close(compiled, plain)


def test_what_is_saved_is_an_ordinary_student(tmp_path):
    trainer = _trainer(tmp_path, TRACED)
    run_or_reuse(trainer)
    assert counters["stats"]["unique_graphs"] > 0
    student = HeadShareForImageClassification.from_pretrained(tmp_path)
    assert type(trainer.student) is HeadShareForImageClassification
    assert student.state_dict().keys() == resnet().state_dict().keys()
    assert_same(snapshot(student), snapshot(trainer.student))


@pytest.mark.parametrize("compiler", [TRACED, None], ids=["compiled", "not compiled"])
def test_a_compiled_run_goes_on(compiler, tmp_path):
    """With the switch, and without: it is no part of what makes a run this run."""
    fields = {"num_train_epochs": 2, "save_strategy": "epoch"}
    whole, _ = _train(tmp_path, TRACED, **fields)
    again = _trainer(tmp_path, compiler, **fields)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert again.state.global_step == 6
    assert losses(again)[-3:] == pytest.approx(losses(whole)[-3:], rel=1e-4)
    _assert_close(again, whole)
