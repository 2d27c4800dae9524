"""A million classes train through the trainer, with a teacher, on what two cores and a few hundred megabytes do."""

import copy

import pytest
import torch
from safetensors import safe_open
from toys import ToyImages, arguments, losses, resnet

from headshare_hf import DistillationTrainer, HeadShareForImageClassification
from headshare_hf.models import CENTERS_FILE
from headshare_hf.trainer import large_heads


MILLION, WIDTH = 1_000_000, 16
HEAD = {"head_type": "arcface", "head_scale": 16.0, "embedding_size": WIDTH, "projector": "linear"}


@pytest.mark.slow
def test_a_million_classes_train_and_are_saved(tmp_path, monkeypatch):
    student, teacher = (resnet(num_labels=MILLION, seed=seed, **HEAD) for seed in (1, 2))
    start = student.classifier.weight.detach().clone()
    args = arguments(tmp_path, method="th_kd_coupled", max_steps=2, save_strategy="steps", save_steps=2)
    trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=ToyImages(32, MILLION))
    assert large_heads.uses_chunks(args, student, teacher)
    # Nobody copies a million names that are none.
    monkeypatch.setattr(copy, "deepcopy", _refusing_names(copy.deepcopy))
    trainer.train()
    assert len(losses(trainer)) == 2 and all(torch.tensor(losses(trainer)).isfinite())
    checkpoint = tmp_path / "checkpoint-2"
    with safe_open(checkpoint / CENTERS_FILE, "pt") as saved:
        weight = saved.get_tensor("classifier.weight")
    assert torch.equal(weight, student.classifier.weight) and not torch.equal(weight, start)
    momentum = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    assert any(state["momentum_buffer"].shape == (MILLION, WIDTH) for state in momentum.values())
    monkeypatch.undo()
    again = HeadShareForImageClassification.from_pretrained(checkpoint)
    assert again.config.num_labels == MILLION and (checkpoint / "config.json").stat().st_size < 10_000


def _refusing_names(deepcopy):
    def refuse(value, *args, **kwargs):
        assert not isinstance(value, dict) or len(value.get("id2label") or ()) < MILLION
        return deepcopy(value, *args, **kwargs)

    return refuse
