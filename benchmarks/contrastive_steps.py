"""The training step with the contrastive loss of CRD: what it is started from, and a plain loop."""

import copy
from typing import Any

import torch
from contrastive_sides import PlainLoss, negatives_of_images
from reference_steps import with_positive
from steps import Batches, PlainStep, TrainerStep
from torch import nn

from headshare_hf.losses import Contrast, ContrastiveLoss


class ManyImages(Batches):
    """Batches that are the first images of a larger training set, of which only the classes are needed."""

    def __init__(self, batches: list, num_images: int, num_labels: int) -> None:
        super().__init__(batches)
        rest = torch.arange(len(self.labels), num_images) % num_labels
        self.labels = torch.cat([self.labels, rest])

    def with_negatives(self, batches: list, num_negatives: int) -> list[dict[str, torch.Tensor]]:
        """The batches with rows of negatives, so that both sides compare with the same images."""
        draw = negatives_of_images(self.labels, num_negatives)
        return [{**batch, "negatives": draw(batch["index"])} for batch in batches]


@torch.no_grad()
def started(step: TrainerStep, student: nn.Module, teacher: nn.Module, batch: dict[str, Any]) -> ContrastiveLoss:
    """A copy of the loss of a run, with the constants that its first batch is about to give it."""
    loss = copy.deepcopy(step.trainer.auxiliaries["contrastive"]).eval()
    device = batch["labels"].device
    seen = [
        network.to(device)(batch["pixel_values"]).embeddings
        for network in (copy.deepcopy(student).train(), copy.deepcopy(teacher).eval())
    ]
    loss(*seen, batch["index"], Contrast(batch["index"], batch["negatives"]))
    return loss


class PlainContrastiveStep(PlainStep):
    """
    CRD as a loop that somebody would write. [`run`] draws the negatives image by image; [`losses`] takes those of the
    batches.

    Args:
        student, teacher, batches, weights: As above; the batches with `negatives`.
        ours ([`ContrastiveLoss`]): After its first batch, to start from the same.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, batches: list, weights: Any, ours: Any) -> None:
        ours = copy.deepcopy(ours)
        self._loss = PlainLoss(ours)
        self._draw = negatives_of_images(ours.negatives.labels, ours.negatives.num_negatives)
        super().__init__(student, teacher, batches, weights, ours)

    def run(self, count: int) -> None:
        """See [`TrainerStep`]."""
        for batch in self.batches[:count]:
            self.step({**batch, "negatives": self._draw(batch["index"])})

    def distance(self, output: Any, seen: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """See [`PlainStep`]."""
        rows = with_positive(batch["index"], batch["negatives"])
        return self.weights.contrastive * self._loss(output.embeddings, seen.embeddings, batch["index"], rows)
