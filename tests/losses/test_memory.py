"""How many tensors of images times classes the losses of logits keep for the backward pass, as docs/faces.md says."""

import re
from pathlib import Path

import torch
from torch.autograd.graph import saved_tensors_hooks

from headshare_hf.losses import DenseScores, DistillationObjective, LossWeights, ObjectiveInputs
from headshare_hf.models.heads import create_head


BATCH, NUM_LABELS, WIDTH = 4, 30, 8
DOCUMENTED = Path(__file__).parents[2] / "docs" / "faces.md"
NUMBERS = {"six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}


def test_th_kd_with_a_margin_keeps_as_many_logits_as_the_guide_says():
    own = create_head("arcface", WIDTH, NUM_LABELS, 16.0)
    shared = create_head("arcface", WIDTH, NUM_LABELS, 16.0).requires_grad_(False)
    embeddings, labels = torch.randn(BATCH, WIDTH, requires_grad=True), torch.arange(BATCH)
    with torch.no_grad():
        teacher = DenseScores(shared(torch.randn(BATCH, WIDTH)), shared)
    kept = {}

    def keep(tensor):
        # By their memory: several operations may keep the same tensor.
        storage = tensor.untyped_storage()
        if storage.nbytes() == 4 * BATCH * NUM_LABELS:
            kept[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        inputs = ObjectiveInputs(
            labels,
            own=DenseScores(own(embeddings), own, embeddings),
            teacher=teacher,
            teacher_head=DenseScores(shared(embeddings), shared, embeddings),
        )
        loss = DistillationObjective(LossWeights.coupled(1.0, 1.5, 0.5), kd_scale=4.0)(inputs)["loss"]
    loss.backward()
    said = re.search(r"autograd keeps\s+(\w+) of them in `th_kd_coupled` with a margin", DOCUMENTED.read_text())
    assert said is not None and NUMBERS[said[1]] == len(kept)
