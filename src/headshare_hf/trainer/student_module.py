"""The module that is trained: the student, and beside it a projector and losses with parameters, where there are any."""

from typing import Any, cast

import torch
from torch import nn

from ..models import embedding_tap, find_classifier
from ..models.heads import create_projector
from .auxiliaries import create_auxiliaries
from .backends import wants_fsdp
from .config import DistillationConfig


class StudentModule(nn.Module):
    """
    Student and what is trained for the training alone in one module, because everything trainable has to be inside what
    DDP wraps.

    Args:
        student (`nn.Module`): An image classifier.
        projector (`nn.Module`, *optional*): Maps the student's embedding to the teacher's width.
        with_logits (`bool`, *optional*, defaults to `True`):
            Whether the classifier is run while training. Losses over many classes read its weights and the embeddings
            instead; `student` is then a [`HeadShareForImageClassification`].
        auxiliaries (`nn.ModuleDict`, *optional*):
            Losses with parameters, see [`create_auxiliaries`]. They are not called here, but on what the student gives.
    """

    main_input_name = "pixel_values"
    accepts_loss_kwargs = False

    def __init__(
        self,
        student: nn.Module,
        projector: nn.Module | None = None,
        with_logits: bool = True,
        auxiliaries: nn.ModuleDict | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.projector = projector
        self.auxiliaries = nn.ModuleDict() if auxiliaries is None else auxiliaries
        # DDP would send memories of all images from process to process at every step; they are the same in all of them.
        self._ddp_params_and_buffers_to_ignore = [
            f"auxiliaries.{name}" for name, _ in self.auxiliaries.named_buffers()
        ]
        self._with_logits = with_logits
        self._tap = embedding_tap(student)

    @property
    def config(self) -> Any:
        """The student's configuration."""
        return self.student.config

    def training_only(self) -> dict[str, nn.Module]:
        """By name, all that a checkpoint has to hold beside the student."""
        own = {} if self.projector is None else {"projector": self.projector}
        return {**own, **self.auxiliaries}

    @property
    def _no_split_modules(self) -> list[str]:
        # Blocks that transformers says stay together: accelerate makes them the units in which FSDP gathers weights.
        names = set(getattr(self.student, "_no_split_modules", None) or [])
        return sorted(names & {type(module).__name__ for module in self.student.modules()})

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Returns `logits` `(batch_size, num_labels)` where they are computed, the student's `embeddings`, and with a
        projector those `projected` to the teacher's width.
        """
        if self.training and not self._with_logits:
            result = {"embeddings": cast(Any, self.student).base_model(pixel_values).embeddings}
        else:
            output = self.student(pixel_values=pixel_values)
            embeddings = output.embeddings if self._tap is None else self._tap.take()
            result = {"logits": output.logits, "embeddings": embeddings}
        if self.projector is not None:
            result["projected"] = self.projector(result["embeddings"])
        return result


def trained_module(
    model: nn.Module,
    teacher: nn.Module | None,
    args: DistillationConfig,
    train_dataset: Any = None,
    with_logits: bool = True,
) -> nn.Module:
    """The student, with a projector and losses that are drawn from the seed of the run, where `args` asks for them."""
    # Without disturbing what the caller draws next.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        projector = None
        if args.projector is not None and teacher is not None:
            widths = find_classifier(model).in_features, find_classifier(teacher).in_features
            projector = create_projector(args.projector, *widths)
        auxiliaries = create_auxiliaries(model, teacher, args, train_dataset)
    # accelerate asks a model that it splits for word embeddings, and splits those of a ViT twice.
    if projector is None and not len(auxiliaries) and with_logits and not wants_fsdp(args):
        return model
    return StudentModule(model, projector, with_logits, auxiliaries)


def may_have_margin(model: nn.Module) -> bool:
    """Whether the cross-entropy needs the student's embedding, for the margin of its head."""
    return getattr(getattr(model, "config", None), "head_type", "linear") != "linear"
