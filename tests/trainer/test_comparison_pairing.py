"""Rows of a comparison see the same images in the same order, seed by seed, so that their differences are paired."""

import hashlib
from collections import defaultdict

import pytest
from toy_comparisons import comparison, image_folder

from headshare_hf import DistillationTrainer
from headshare_hf.trainer.recipe import run_recipe
from headshare_hf.trainer.recipe_arguments import build_recipe


METHODS = {
    "plain": {"method": "plain"},
    "kd": {"method": "kd"},
    "simkd": {"method": "simkd", "student": {"map_projector": {"out_channels": 64}}},
    # With its stage before the training.
    "factor": {"method": "factor", "pretraining_epochs": 1},
    # Layers and a memory of their own, and numbers drawn for them.
    "crd": {"method": "crd", "num_negatives": 4},
    "wide": {"method": "th_kd", "student": {"backbone": "resnet8x4"}, "projector": "linear"},
    "sh": {"method": "sh_kd", "temporary_student": "kd"},
}


def _digest(inputs) -> str:
    digest = hashlib.sha256()
    for name in ("index", "labels", "pixel_values"):
        digest.update(inputs[name].numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.slow
def test_all_rows_of_a_seed_see_the_same_batches(tmp_path, monkeypatch):
    seen, compute_loss = defaultdict(list), DistillationTrainer.compute_loss

    def remember(self, model, inputs, *args, **kwargs):
        if model.training:
            seen[self.folder.parent.name, self.args.seed].append(_digest(inputs))
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(DistillationTrainer, "compute_loss", remember)
    found = comparison(image_folder(tmp_path / "images"), methods=METHODS, seeds=[0, 1])
    for cell in found.cells(tmp_path / "out"):
        run_recipe(build_recipe(dict(cell.sections)))
    for seed in (0, 1):
        assert all(seen[row, seed] == seen["plain", seed] for row in METHODS), seed
        # Two epochs of 18 images; no two of them look alike, because every epoch has its own augmentation and order.
        assert len(seen["plain", seed]) == len(set(seen["plain", seed])) == 6
    assert not set(seen["plain", 0]) & set(seen["plain", 1])
