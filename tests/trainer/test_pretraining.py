"""The stage of training that some companions have before the student's own: cut, resumed, taken over."""

import json
import shutil

import pytest
import torch
from toys import ToyImages, arguments, assert_same, losses, resnet, snapshot
from transformers import TrainerCallback

from headshare_hf import DistillationTrainer
from headshare_hf.trainer import RunFolderError, is_finished, last_checkpoint, run_or_reuse
from headshare_hf.trainer.pretraining import PRETRAINING, PretrainingTrainer, _arguments


def make(folder, method="factor", student=None, **fields):
    fields = {"pretraining_epochs": 2.0, "max_steps": 2, "channels_last": False, "fold_teacher": False, **fields}
    student = resnet(seed=1) if student is None else student
    args = arguments(folder, method=method, **fields)
    return DistillationTrainer(student, args, teacher=resnet("resnet14", seed=2), train_dataset=ToyImages(32))


class CutError(Exception):
    """The run ends here."""


class Cut(TrainerCallback):
    """Ends a run after an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, args, state, control, **kwargs):
        if round(state.epoch or 0) == self.epoch:
            raise CutError


def cut_after_an_epoch(trainer, monkeypatch):
    """Trains until the second epoch of the first stage begins."""
    start = PretrainingTrainer.__init__

    def begin(self, *args):
        start(self, *args)
        self.add_callback(Cut(1))

    with monkeypatch.context() as patched:
        patched.setattr(PretrainingTrainer, "__init__", begin)
        with pytest.raises(CutError):
            trainer.train()


def stage_losses(folder):
    """The logged losses of the first stage."""
    state = json.loads((folder / PRETRAINING / "checkpoint-4" / "trainer_state.json").read_text())
    return [row["loss_pretraining"] for row in state["log_history"] if "loss_pretraining" in row]


@pytest.mark.parametrize("method", ["factor", "abound"])
def test_a_cut_stage_goes_on_and_a_finished_one_is_taken_over(method, tmp_path, monkeypatch):
    whole = make(tmp_path / "whole", method)
    whole.train()
    assert is_finished(tmp_path / "whole" / PRETRAINING) and len(stage_losses(tmp_path / "whole")) == 4
    cut = make(tmp_path / "cut", method)
    cut_after_an_epoch(cut, monkeypatch)
    assert last_checkpoint(tmp_path / "cut" / PRETRAINING).endswith("checkpoint-2")
    assert not is_finished(tmp_path / "cut" / PRETRAINING)
    resumed = make(tmp_path / "cut", method)
    resumed.train()
    assert stage_losses(tmp_path / "cut") == stage_losses(tmp_path / "whole")
    # A third time, from what is finished: the stage takes no step.
    monkeypatch.setattr(PretrainingTrainer, "compute_loss", None)
    again = make(tmp_path / "cut", method)
    torch.rand(3)
    again.train()
    for trainer in (resumed, again):
        assert losses(trainer) == losses(whole)
        assert_same(snapshot(trainer.model), snapshot(whole.model))
    assert 0 < again._seconds_before < again.train_seconds


def test_a_run_that_is_resumed_after_the_stage_does_not_repeat_it(tmp_path, monkeypatch):
    fields = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3}
    whole = make(tmp_path / "whole", **fields)
    whole.train()
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-1", cut / "checkpoint-1")
    shutil.copy(tmp_path / "whole" / "run.json", cut)
    monkeypatch.setattr("headshare_hf.trainer.trainer.pretrain", None)
    resumed = make(cut, **fields)
    results = run_or_reuse(resumed)
    assert losses(resumed) == losses(whole) and not (cut / PRETRAINING).exists()
    assert_same(snapshot(resumed.model), snapshot(whole.model))
    assert results["train_seconds"] > 0
    assert not any(p.requires_grad for p in resumed.auxiliaries["companion"].pretraining_parameters())


def test_the_paraphraser_learns_and_nothing_of_the_student(tmp_path):
    trainer = make(tmp_path)
    before, loss = snapshot(trainer.student), trainer.auxiliaries["companion"]
    layers = {name: value.clone() for name, value in loss.named_parameters()}
    trainer._before_first_step()
    assert_same(snapshot(trainer.student), before)
    moved = {name.partition(".")[0] for name, value in loss.named_parameters() if not torch.equal(value, layers[name])}
    assert moved == {"encoder", "decoder"} and loss.pretrained
    assert all(parameter.requires_grad for parameter in trainer.student.parameters())
    assert all(parameter.requires_grad for parameter in loss.translator.parameters())


# Of a WRN, the last normalisation comes after the maps that fsp compares.
@pytest.mark.parametrize("method, network, after", [("abound", "resnet8", "-"), ("fsp", "wrn_16_1", "backbone.bn1")])
def test_the_backbone_learns_and_the_classifier_does_not(method, network, after, tmp_path):
    student, teacher = resnet(network, seed=1), resnet(network, seed=2)
    frozen = student.headshare.backbone.conv1.weight.requires_grad_(False)
    flags, before = [each.requires_grad for each in student.parameters()], snapshot(student)
    args = arguments(tmp_path, method=method, pretraining_epochs=1)
    trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=ToyImages(32))
    trainer._before_first_step()
    still = {name for name, value in student.named_parameters() if torch.equal(value, before[name])}
    expected = [name for name, each in student.named_parameters() if each is frozen or "classifier" in name]
    assert still == {*expected, *(name for name in before if after in name and name in still)}
    assert len(still) == (3 if after == "-" else 5)
    assert [each.requires_grad for each in student.parameters()] == flags


def test_what_comes_after_does_not_depend_on_what_the_stage_has_drawn(tmp_path):
    trainer = make(tmp_path, "fsp")
    state = torch.get_rng_state()
    trainer._before_first_step()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_stage_has_a_learning_rate_and_checkpoints_of_its_own(tmp_path):
    fields = {"pretraining_learning_rate": 0.01, "lr_decay_epochs": [1], "max_steps": -1, "num_train_epochs": 2}
    make(tmp_path, save_strategy="steps", save_steps=3, **fields).train()
    state = json.loads((tmp_path / PRETRAINING / "checkpoint-4" / "trainer_state.json").read_text())
    rates = [row["learning_rate"] for row in state["log_history"] if "learning_rate" in row]
    assert rates == [0.01] * 4
    assert sorted(path.name for path in (tmp_path / PRETRAINING).glob("checkpoint-*")) == ["checkpoint-4"]


BEST = {"save_strategy": "best", "eval_strategy": "epoch", "metric_for_best_model": "accuracy"}


@pytest.mark.parametrize("fields", [{"eval_on_start": True}, {**BEST, "load_best_model_at_end": True}])
@pytest.mark.parametrize("method", ["factor", "fsp"])
def test_the_stage_evaluates_nothing(method, fields, tmp_path):
    args = arguments(tmp_path, method=method, pretraining_epochs=2.0, **fields)
    student, teacher = resnet(seed=1), resnet(seed=2)
    images = {"train_dataset": ToyImages(32), "eval_dataset": ToyImages(8)}
    DistillationTrainer(student, args, teacher=teacher, **images)._before_first_step()
    assert len(stage_losses(tmp_path)) == 4


def test_what_is_for_the_run_alone_is_not_for_its_stage(tmp_path):
    compiled = {"torch_compile": True, "torch_compile_mode": "default"}
    shown = {"push_to_hub": True, "report_to": "tensorboard", "max_steps": 3, "lr_scheduler_type": "cosine"}
    found = _arguments(arguments(tmp_path, method="factor", **compiled, **shown), pretrains_backbone=False)
    assert (found.torch_compile, found.push_to_hub, found.report_to, found.max_steps) == (False, False, [], -1)
    assert found.lr_scheduler_type == "constant"


def test_the_stage_of_another_run_is_refused(tmp_path):
    make(tmp_path)._before_first_step()
    with pytest.raises(RunFolderError, match=r"`companion.pretraining_epochs` is 2.0 there and 3.0 here"):
        make(tmp_path, pretraining_epochs=3.0).train()
    shutil.rmtree(tmp_path / PRETRAINING / "checkpoint-4")
    with pytest.raises(RunFolderError, match="its checkpoint is gone; remove the folder, and the stage runs again"):
        make(tmp_path).train()
