"""The module that is trained: the student, and a projector beside it where one is asked for."""

from typing import Any

import torch
from torch import nn

from ..models import embedding_tap, find_classifier
from ..models.heads import create_projector
from .config import DistillationConfig


class StudentModule(nn.Module):
    """
    Student and training-only projector in one module, because everything trainable has to be inside what DDP wraps.

    Args:
        student (`nn.Module`): An image classifier.
        projector (`nn.Module`): Maps the student's embedding to the teacher's width.
    """

    main_input_name = "pixel_values"
    accepts_loss_kwargs = False

    def __init__(self, student: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.projector = projector
        self._tap = embedding_tap(student)

    @property
    def config(self) -> Any:
        """The student's configuration."""
        return self.student.config

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Returns `logits` `(batch_size, num_labels)`, the student's `embeddings`, and those `projected` to the teacher's
        width.
        """
        output = self.student(pixel_values=pixel_values)
        embeddings = output.embeddings if self._tap is None else self._tap.take()
        return {"logits": output.logits, "embeddings": embeddings, "projected": self.projector(embeddings)}


def trained_module(model: nn.Module, teacher: nn.Module | None, args: DistillationConfig) -> nn.Module:
    """The student, with a projector drawn from the seed of the run where `args` asks for one."""
    if args.projector is None or teacher is None:
        return model
    widths = find_classifier(model).in_features, find_classifier(teacher).in_features
    # Without disturbing what the caller draws next.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        return StudentModule(model, create_projector(args.projector, *widths))


def may_have_margin(model: nn.Module) -> bool:
    """Whether the cross-entropy needs the student's embedding, for the margin of its head."""
    return getattr(getattr(model, "config", None), "head_type", "linear") != "linear"
