"""The same training on an accelerator, where there is one: memory banks, companions with layers, losses in chunks."""

import math
import shutil

import pytest
import torch
from companion_runs import make
from toys import ToyImages, losses

from headshare_hf import DistillationConfig
from headshare_hf.trainer import METHODS


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator"),
]
NUM_IMAGES = 40
# All images of other classes, so that the negatives are the same ones although generators of devices differ.
ALL_OTHERS = 32


class IndexedImages(ToyImages):
    """With the position of every image."""

    def __getitem__(self, index):
        return {**super().__getitem__(index), "index": index}


@pytest.fixture(autouse=True)
def comparable(monkeypatch):
    """Convolutions in full precision, and one device of several."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(DistillationConfig, "n_gpu", 1)


def _trained(folder, method, on_cpu=False, **fields):
    trainer = make(folder, method, data=IndexedImages(NUM_IMAGES), use_cpu=on_cpu, **fields)
    trainer.train()
    wanted = "cpu" if on_cpu else torch.accelerator.current_accelerator().type
    modules = trainer.model, trainer.teacher.model
    assert {each.device.type for module in modules for each in (*module.parameters(), *module.buffers())} == {wanted}
    return trainer


def _logged(trainer):
    rows = [row for row in trainer.state.log_history if "loss" in row]
    return [{name: value for name, value in row.items() if name.startswith("loss")} for row in rows]


@pytest.mark.parametrize(
    "method, fields",
    [
        ("th_crd", {"num_negatives": ALL_OTHERS}),
        ("th_vid", {}),
        ("th_kd", {"chunked_losses": True}),
        ("th_kd_coupled", {"chunked_losses": True}),
        ("th_dkd", {}),
        ("th_srrl", {}),
        ("simkd", {}),
        ("adadistill", {}),
    ],
)
def test_two_steps_have_the_losses_of_the_cpu(method, fields, tmp_path):
    expected, found = (_logged(_trained(tmp_path / str(on_cpu), method, on_cpu, **fields)) for on_cpu in (True, False))
    assert len(expected) == len(found) == 2
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("negatives", ["exact", "relaxed", "shared"])
def test_negatives_of_every_kind_are_drawn_there(negatives, tmp_path):
    trainer = _trained(tmp_path, "th_crd", num_negatives=20, negatives=negatives)
    assert all(math.isfinite(loss) for loss in losses(trainer))
    contrast = trainer.auxiliaries["contrastive"].negatives(torch.arange(4, device=trainer.args.device), 0)
    assert {each.device.type for each in contrast if each is not None} == {trainer.args.device.type}


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.companion])
def test_every_companion_trains_there(method, tmp_path):
    assert all(math.isfinite(loss) for loss in losses(_trained(tmp_path, method)))


@pytest.mark.parametrize("method, fields", [("th_crd", {"num_negatives": ALL_OTHERS}), ("th_vid", {})])
def test_a_run_that_was_cut_goes_on_there(method, fields, tmp_path):
    fields = {"save_strategy": "steps", "save_steps": 1, **fields}
    whole = _trained(tmp_path, method, **fields)
    shutil.rmtree(tmp_path / "checkpoint-2")
    resumed = make(tmp_path, method, data=IndexedImages(NUM_IMAGES), use_cpu=False, **fields)
    resumed.train(resume_from_checkpoint=True)
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-3)
