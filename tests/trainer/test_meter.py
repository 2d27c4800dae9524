"""The running means of the loss parts, and what a step computes for the log."""

import math

import pytest
import torch
from toys import ToyImages, arguments, resnet

from headshare_hf import DistillationTrainer
from headshare_hf.trainer import NonFiniteLossError
from headshare_hf.trainer.meter import LossMeter


def _parts(loss, ce):
    return {"loss": torch.tensor(loss, requires_grad=True), "ce": torch.tensor(ce)}


def test_sums_are_kept_until_they_are_reset():
    meter = LossMeter()
    meter.add(_parts(1.5, 2.0), step=1)
    meter.add(_parts(2.5, 4.0), step=2)
    assert meter.names == ["loss", "ce"] and meter.count == 2
    sums = meter.sums()
    meter.reset()
    assert sums.tolist() == [4.0, 6.0] and meter.sums().tolist() == [0.0, 0.0] and meter.count == 0
    assert not sums.requires_grad


def test_the_first_step_that_is_not_finite_is_kept_and_named_by_its_part():
    meter = LossMeter()
    for step, ce in ((1, 1.0), (2, math.inf), (3, math.nan), (4, 1.0)):
        meter.add(_parts(1.0 if step == 1 else math.nan, ce), step)
        meter.reset()
    assert meter.first_bad().tolist() == [2, 2]
    with pytest.raises(NonFiniteLossError, match=r"loss part ce was not finite at step 2\. Do less"):
        meter.check(meter.first_bad(), "Do less")


def test_finite_parts_pass():
    meter = LossMeter()
    meter.add(_parts(1.0, 3e38), step=1)
    meter.check(meter.first_bad(), "")
    assert min(meter.first_bad().tolist()) > 10**18


def test_parts_of_another_name_are_refused():
    meter = LossMeter()
    meter.add(_parts(1.0, 1.0), step=1)
    with pytest.raises(ValueError, match=r"were \['loss', 'ce'\] and are \['loss', 'kd'\]"):
        meter.add({"loss": torch.tensor(1.0), "kd": torch.tensor(1.0)}, step=2)


@pytest.mark.parametrize(
    "fields, steps, logged",
    [
        ({"logging_steps": 2}, [1, 2, 4, 6], 3),
        ({"logging_strategy": "no"}, [], 0),
        ({"logging_strategy": "epoch"}, [1, 2, 3, 4, 5, 6], 2),
        ({"max_grad_norm": 1e6, "logging_steps": 3}, [1, 2, 3, 4, 5, 6], 2),
    ],
)
def test_the_norm_of_the_gradients_is_taken_where_it_is_logged_or_clipped(
    fields, steps, logged, tmp_path, monkeypatch
):
    args = arguments(tmp_path, method="plain", num_train_epochs=2, **{"logging_strategy": "steps", **fields})
    trainer = DistillationTrainer(resnet(seed=1), args, train_dataset=ToyImages())
    taken, clip = [], trainer.accelerator.clip_grad_norm_

    def noted(parameters, *rest):
        taken.append(trainer.state.global_step + 1)
        return clip(parameters, *rest)

    monkeypatch.setattr(trainer.accelerator, "clip_grad_norm_", noted)
    trainer.train()
    assert trainer.state.global_step == 6 and taken == steps
    norms = [row["grad_norm"] for row in trainer.state.log_history if "loss" in row]
    assert len(norms) == logged and all(norm > 0 for norm in norms)
