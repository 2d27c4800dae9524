"""Training steps of the authors' own loop, over batches in memory; needs their checkout, see `use_reference`."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from contrastive_sides import negatives_of_images, reference_loss
from steps import LEARNING_RATE, MOMENTUM, TEMPERATURE, WEIGHT_DECAY, TrainerStep, network, settle
from torch import nn

from headshare_hf.hub import convert_state_dict


def reference_pair(teacher: str, student: str, num_labels: int, size: int) -> tuple[Any, Any, Any, Any]:
    """The authors' networks, and ours with the same weights: their student and teacher, then ours."""
    from models import model_dict

    theirs = [model_dict[name](num_classes=num_labels) for name in (student, teacher)]
    settle(theirs[1], size)
    ours = [network(name, num_labels) for name in (student, teacher)]
    for source, target in zip(theirs, ours, strict=True):
        target.load_state_dict(convert_state_dict(source.state_dict(), target.config))
    return (*theirs, *ours)


class ReferenceStep(TrainerStep):
    """
    Drives the authors' own `train_distill` with TH-KD.

    Args:
        student (`nn.Module`): One of their networks.
        teacher (`nn.Module`): Likewise.
        batches (`list`): Of [`make_batches`].
        weights ([`Method`]): Of the parts.
    """

    method = "kdth"

    def __init__(self, student: Any, teacher: Any, batches: list, weights: Any) -> None:
        from kd_teacher_head.kdth import KDTH, ModelTH

        with torch.no_grad():
            wrapped = ModelTH(student, teacher)
        self._prepare([wrapped], teacher, KDTH(T=TEMPERATURE), batches)
        self._options = self._weighted(weights, weights.teacher_head)
        self.batches = [(batch["pixel_values"], batch["labels"], batch["index"]) for batch in batches]

    def _prepare(self, trained: list[nn.Module], teacher: nn.Module, loss: nn.Module, batches: list) -> None:
        from distiller_zoo import DistillKL
        from helper.loops import train_distill

        self._train = train_distill
        device = batches[0]["labels"].device
        self._modules = nn.ModuleList([*trained, teacher]).to(device)
        self._criteria = nn.ModuleList([nn.CrossEntropyLoss(), DistillKL(TEMPERATURE), loss]).to(device)
        self._optimizer = torch.optim.SGD(
            nn.ModuleList(trained).parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )

    def _weighted(self, weights: Any, beta: float) -> SimpleNamespace:
        return SimpleNamespace(distill=self.method, print_freq=100, gamma=weights.ce, alpha=weights.kd, beta=beta)

    def run(self, count: int) -> None:
        """See [`TrainerStep`]."""
        self._epoch(self.batches[:count])

    def losses(self, count: int) -> list[float]:
        """See [`TrainerStep`]."""
        return [float(self._epoch([batch])) for batch in self.batches[:count]]

    def _epoch(self, loader: Any) -> float:
        """Mean loss."""
        return self._train(1, loader, self._modules, self._criteria, self._optimizer, self._options)[1]


class ReferenceContrastiveStep(ReferenceStep):
    """
    The same with CRD. [`run`] draws the negatives image by image, as their data set does; [`losses`] takes those of the
    batches.

    Args:
        student, teacher, batches, weights: As above; the batches with `negatives`.
        ours ([`ContrastiveLoss`]): After its first batch, to start from the same.
    """

    method = "crd"

    def __init__(self, student: Any, teacher: Any, batches: list, weights: Any, ours: Any) -> None:
        sampler = ours.negatives
        self._draw = negatives_of_images(sampler.labels, sampler.num_negatives)
        loss = reference_loss(ours, sampler.num_negatives)
        self._prepare([student, loss.embed_s, loss.embed_t], teacher, loss, batches)
        self._options = self._weighted(weights, weights.contrastive)
        names = ("pixel_values", "labels", "index", "negatives")
        plain = [tuple(batch[name] for name in names) for batch in batches]
        self.batches = [(*first, index, with_positive(index, rows)) for *first, index, rows in plain]

    def run(self, count: int) -> None:
        """See [`ReferenceStep`]."""
        self._epoch(_Loader(self.batches[:count], self._draw))


class _Loader:
    """Batches in memory, whose negatives are drawn when they are asked for."""

    def __init__(self, batches: list, draw: Any) -> None:
        self._batches, self._draw = batches, draw

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple]:
        for images, labels, index, _ in self._batches:
            yield images, labels, index, with_positive(index, self._draw(index))


def with_positive(index: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """Rows that begin with the image itself."""
    return torch.cat([index[:, None], negatives], 1)
