"""The module that is trained: the student, and beside it a projector and losses with parameters, where there are any."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from ..models import embedding_tap, find_classifier, share_head
from ..models.heads import create_projector
from .auxiliaries import create_auxiliaries
from .backends import wants_fsdp
from .companions import feature_maps
from .config import DistillationConfig
from .config_checks import MAPS


class StudentOutput(NamedTuple):
    """
    Attributes:
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`, *optional*):
            Of the student's own head; `None` where the losses need no such matrix.
        embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`, *optional*): What that head read.
        shared (`torch.Tensor`, *optional*): What the teacher's head reads, after a projector if there is one.
        maps (`dict[str, Any]`, *optional*): See [`feature_maps`].
    """

    logits: Any
    embeddings: Any
    shared: Any
    maps: dict[str, Any] | None


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
            Losses that are modules, see [`create_auxiliaries`]. They are not called here, but on what the student gives.
        with_embeddings (`bool`, *optional*, defaults to `True`):
            Whether the embedding is read. Without, the student may have any kind of classifier.
        with_maps (`bool`, *optional*, defaults to `False`): Whether feature maps are returned while training.
    """

    main_input_name = "pixel_values"
    accepts_loss_kwargs = False

    def __init__(
        self,
        student: nn.Module,
        projector: nn.Module | None = None,
        with_logits: bool = True,
        auxiliaries: nn.ModuleDict | None = None,
        with_embeddings: bool = True,
        with_maps: bool = False,
    ) -> None:
        super().__init__()
        self.student = student
        self.projector = projector
        self.auxiliaries = nn.ModuleDict() if auxiliaries is None else auxiliaries
        # DDP would send memories of all images from process to process at every step; they are the same in all of them.
        # Batch statistics of layers in the losses are not, and are not read either.
        self._ddp_params_and_buffers_to_ignore = [
            f"auxiliaries.{name}" for name, _ in self.auxiliaries.named_buffers()
        ]
        self._with_logits = with_logits
        self._with_embeddings = with_embeddings
        self._with_maps = with_maps
        self._tap = embedding_tap(student) if with_embeddings else None

    @property
    def config(self) -> Any:
        """The student's configuration."""
        return self.student.config

    def training_only(self) -> dict[str, nn.Module]:
        """By name, all that a checkpoint has to hold beside the student."""
        own = {} if self.projector is None else {"projector": self.projector}
        return {**own, **self.auxiliaries}

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Of the student, see `PreTrainedModel.activation_checkpointing_enable`."""
        cast(Any, self.student).activation_checkpointing_enable(*args, **kwargs)

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """The same under the name that older versions of transformers call."""
        cast(Any, self.student).gradient_checkpointing_enable(*args, **kwargs)

    @property
    def _no_split_modules(self) -> list[str]:
        # Blocks that transformers says stay together: accelerate makes them the units in which FSDP gathers weights.
        names = set(getattr(self.student, "_no_split_modules", None) or [])
        return sorted(names & {type(module).__name__ for module in self.student.modules()})

    def forward(self, pixel_values: torch.Tensor) -> dict[str, Any]:
        """
        Returns `logits` `(batch_size, num_labels)` where they are computed, the student's `embeddings` where they are
        read, with a projector those `projected` to the teacher's width, and `maps`, see [`feature_maps`], where they are
        asked for.
        """
        options: dict[str, Any] = {"output_hidden_states": True} if self._with_maps and self.training else {}
        if self.training and not self._with_logits:
            output = cast(Any, self.student).base_model(pixel_values, **options)
            result: dict[str, Any] = {"embeddings": output.embeddings}
        else:
            output = self.student(pixel_values=pixel_values, **options)
            result = {"logits": output.logits}
            if self._with_embeddings:
                result["embeddings"] = output.embeddings if self._tap is None else self._tap.take()
        if self.projector is not None:
            result["projected"] = self.projector(result["embeddings"])
        if options:
            result["maps"] = feature_maps(output)
        return result


def set_head(
    model: nn.Module, teacher: nn.Module | None, args: DistillationConfig, shared_head_from: nn.Module | None
) -> None:
    """
    Copies the classifier into `model` that `args` or `shared_head_from` say, if any.

    Raises:
        ValueError: Two of them set it, or as [`share_head`].
    """
    if shared_head_from is not None and args.student_head != "own":
        raise ValueError("`shared_head_from` and `student_head` both set the classifier of the model; use one")
    if shared_head_from is not None and args.predicts_with_centers:
        raise ValueError(
            f"`shared_head_from` would have no effect: the class centers of {args.companion_name} take the place of the "
            "model's classifier; leave it out"
        )
    if shared_head_from is not None:
        share_head(shared_head_from, model, freeze=True)
    elif args.student_head != "own" and teacher is not None:
        share_head(teacher, model, freeze=args.student_head == "teacher_frozen")


def trained_module(
    model: nn.Module,
    teacher: nn.Module | None,
    args: DistillationConfig,
    train_dataset: Any,
    adapt: Callable[[torch.Tensor], torch.Tensor],
    with_logits: bool,
    with_embeddings: bool,
) -> nn.Module:
    """The student, with a projector and losses that are drawn from the seed of the run, where `args` asks for them."""
    # Without disturbing what the caller draws next.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        projector = None
        if args.projector is not None and teacher is not None:
            widths = find_classifier(model).in_features, find_classifier(teacher).in_features
            projector = create_projector(args.projector, *widths)
        auxiliaries = create_auxiliaries(model, teacher, args, train_dataset, adapt)
    # accelerate asks a model that it splits for word embeddings, and splits those of a ViT twice.
    if projector is None and not len(auxiliaries) and with_logits and not wants_fsdp(args):
        return model
    return StudentModule(model, projector, with_logits, auxiliaries, with_embeddings, bool(args.student_reads & MAPS))


def may_have_margin(model: nn.Module) -> bool:
    """Whether the cross-entropy needs the student's embedding, for the margin of its head."""
    return getattr(getattr(model, "config", None), "head_type", "linear") != "linear"
