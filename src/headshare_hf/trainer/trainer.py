"""The trainer: plain training, TH-KD, SH-KD and their relatives on `transformers.Trainer`."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from ..data import collate
from ..evaluation import ClassificationMetrics, Verifier
from ..losses import (
    ChunkedScores,
    DenseScores,
    DistillationObjective,
    MomentScores,
    ObjectiveInputs,
    Sampling,
    Scores,
    ShardedScores,
)
from ..models import HeadShareForImageClassification, embedding_tap, find_classifier, share_head
from . import run_folder
from .auxiliaries import auxiliary_losses
from .backends import check_backends
from .caching import CachingTrainer
from .callbacks import EpochSeedCallback
from .checks import check_run
from .config import DistillationConfig
from .identity import run_identity
from .large_heads import check_sharded_heads, uses_chunks
from .loading import load_teacher
from .meter import LossMeter
from .sharding import prepare_for_sharding
from .softening import DEFAULT_TEMPERATURE, resolve_softening
from .split_heads import SplitHead, leave_to_processes, part_of_head
from .student_module import StudentModule, may_have_margin, trained_module
from .teacher import FrozenTeacher, InputAdapter, input_statistics, teacher_autocast
from .teacher_cache import CachedTeacher, TeacherUse, check_cacheable


class DistillationTrainer(CachingTrainer):
    """
    Trains an image classifier, alone or from a teacher, with any method of the table.

    The teacher stays outside of the module that is trained: it is never wrapped, saved or changed, and its classifier
    is used where it is, so that a checkpoint holds the student and nothing else.

    Args:
        model (`nn.Module`): The student, a [`HeadShareForImageClassification`] or any transformers image classifier
            whose classifier is one linear layer on a pooled embedding.
        args ([`DistillationConfig`]): Method, weights and training arguments.
        teacher (`nn.Module` or `str`, *optional*): A trained image classifier, or its folder, Hub id or `id@revision`.
        train_dataset (`Dataset`, *optional*): Gives `pixel_values` and `labels`.
        eval_dataset (`Dataset`, *optional*): Likewise.
        processing_class (`Any`, *optional*): The student's image processor; saved with the weights.
        teacher_processing_class (`Any`, *optional*):
            The teacher's image processor, whose statistics and size its input is brought to. Without one, those that a
            timm network carries are used, and otherwise the student's.
        shared_head_from (`nn.Module`, *optional*):
            A model whose classifier is copied into `model` and frozen before training: with a teacher network as
            `model`, the middle run of SH-KD.
        compute_metrics (`Callable`, *optional*):
            Called batch by batch, see `batch_eval_metrics` of transformers. Default: top-1, top-5 and mean per-class
            accuracy.
        verifier ([`Verifier`], *optional*):
            Pairs of images that the model is scored on after every epoch, e.g. those of Labeled Faces in the Wild.
        kwargs: Further arguments of `transformers.Trainer`, e.g. `callbacks`, `optimizers`, `data_collator`.

    Raises:
        ValueError: Student, teacher, options or data do not fit together; see [`check_run`].
    """

    # Every part is a mean over its batch, so the Trainer has to divide by the number of accumulated batches.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: nn.Module,
        args: DistillationConfig,
        teacher: nn.Module | str | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        teacher_processing_class: Any = None,
        shared_head_from: nn.Module | None = None,
        compute_metrics: Callable[..., dict[str, float]] | None = None,
        verifier: Verifier | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(teacher, str):
            teacher, teacher_processing_class = load_teacher(teacher)
        if kwargs.get("compute_loss_func") is not None:
            raise ValueError("`compute_loss_func` has no effect: the loss is that of the method")
        check_run(model, teacher, args, train_dataset, eval_dataset)
        resolve_softening(args, model, teacher)
        self._prepare_heads(model, teacher, args, shared_head_from)
        self.identity = run_identity(model, teacher, shared_head_from, args, (train_dataset, eval_dataset))
        self.objective: DistillationObjective = DistillationObjective(
            args.loss_weights, args.temperature or DEFAULT_TEMPERATURE, args.kd_scale, args.embedding_distance
        )
        self.meter = LossMeter()
        check_sharded_heads(args)
        self._chunked = uses_chunks(args, model, teacher)
        trained = trained_module(model, teacher, args, train_dataset, with_logits=not self._chunked)
        self._auxiliaries = trained.auxiliaries if isinstance(trained, StudentModule) else nn.ModuleDict()
        self._teacher_part: nn.Module | None = None
        self._head = find_classifier(model) if may_have_margin(model) or self._chunked else None
        self._needs_embedding = args.meets_at_embedding or self._head is not None
        self._tap = embedding_tap(model) if trained is model and self._needs_embedding else None
        kwargs.setdefault("data_collator", collate)
        super().__init__(
            model=trained,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics or ClassificationMetrics(cast(Any, model).config.num_labels),
            **kwargs,
        )
        check_backends(self)
        # transformers before 5.20 has no `loss_is_scaled_for_ga` and decides by this attribute alone.
        self.model_accepts_loss_kwargs = False
        self.label_names = ["labels"]
        self.add_callback(EpochSeedCallback())
        self._watch(verifier, model, train_dataset)
        self.teacher = self._freeze_teacher(teacher, processing_class, teacher_processing_class)
        # A CPU takes the layout from the images alone, so that the weights stay as the user has them.
        if args.channels_last and args.device.type != "cpu":
            nn.ModuleList(filter(None, (trained, teacher))).to(memory_format=torch.channels_last)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            prepare_for_sharding(trained, self.accelerator)
        if args.shard_heads:
            self._split_classes(trained, model, teacher)

    @staticmethod
    def _prepare_heads(
        model: nn.Module, teacher: nn.Module | None, args: DistillationConfig, shared_head_from: nn.Module | None
    ) -> None:
        if shared_head_from is not None and args.student_head != "own":
            raise ValueError("`shared_head_from` and `student_head` both set the classifier of the model; use one")
        if shared_head_from is not None:
            share_head(shared_head_from, model, freeze=True)
        elif args.student_head != "own" and teacher is not None:
            share_head(teacher, model, freeze=args.student_head == "teacher_frozen")

    def _split_classes(self, trained: nn.Module, model: nn.Module, teacher: nn.Module | None) -> None:
        self._split_head = SplitHead(find_classifier(model))
        leave_to_processes(self._split_head.head, trained)
        if teacher is not None:
            whole = find_classifier(teacher)
            self._teacher_part = part_of_head(whole, self._split_head.start, self._split_head.stop, self.args.device)
            if isinstance(teacher, HeadShareForImageClassification):
                # Of this one nothing is read any more.
                whole.cpu()

    def _freeze_teacher(
        self, teacher: nn.Module | None, processor: Any, teacher_processor: Any
    ) -> FrozenTeacher | CachedTeacher | None:
        if teacher is None:
            return None
        statistics = input_statistics(processor), input_statistics(teacher_processor, teacher)
        half = next(teacher.parameters()).dtype != torch.float32
        if half and self.args.teacher_precision == "float32":
            raise ValueError("`teacher_precision` is 'float32', but the teacher's weights are not; load it in float32")
        autocast = teacher_autocast(self.args.teacher_precision, self.args.device, self.accelerator.autocast)
        needs_embedding = self.args.meets_at_embedding or self.args.kd_scale is not None or self._chunked
        options = InputAdapter(*statistics), autocast, needs_embedding, not self._chunked, self.args.fold_teacher
        frozen = partial(FrozenTeacher, teacher, self.args.device, *options, read_by_layers=len(self._auxiliaries) > 0)
        if self.args.teacher_cache is None:
            return frozen()
        check_cacheable(self.train_dataset, self.data_collator)
        reads_embedding = self._chunked or self.args.loss_weights.needs_teacher_embedding
        use = TeacherUse(needs_embedding, not self._chunked, reads_embedding, self._moments_at(teacher))
        return CachedTeacher(teacher, frozen, statistics, self.args.device, autocast, use)

    def _moments_at(self, teacher: nn.Module) -> float | None:
        if not self.args.teacher_cache_moments:
            return None
        if not self._chunked or self.args.shard_heads:
            raise ValueError(
                "`teacher_cache_moments` is for losses over chunks of classes in one process; leave it out, or set "
                "`chunked_losses` and leave out `shard_heads`"
            )
        return self.objective.temperature_of(find_classifier(teacher))

    # Training step

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The weighted sum of the loss parts, each a mean over the batch. See `transformers.Trainer.compute_loss`."""
        pixel_values = self._in_layout(inputs["pixel_values"])
        logits, own, shared = self._run_student(model, pixel_values)
        batch = ObjectiveInputs(inputs["labels"], own=self._scores(logits, self._head, own), embeddings=shared)
        if self.teacher is not None:
            self._ask_teacher(self.teacher, pixel_values, inputs, batch)
            batch.auxiliary = auxiliary_losses(self._auxiliaries, own, batch.teacher_embeddings, inputs)
        parts = self.objective(batch)
        if model.training:
            self.meter.add(parts, self.state.global_step + 1)
        return (parts["loss"], {"logits": logits}) if return_outputs else parts["loss"]

    def _ask_teacher(
        self,
        teacher: FrozenTeacher | CachedTeacher,
        pixel_values: torch.Tensor,
        inputs: dict[str, torch.Tensor],
        batch: ObjectiveInputs,
    ) -> None:
        """Adds to `batch` what the method wants of the teacher."""
        if self.objective.weights.needs_teacher_forward:
            seen = teacher(pixel_values, inputs)
            head = self._teacher_head(teacher)
            batch.teacher = (
                self._scores(seen.logits, head, seen.embeddings)
                if seen.moments is None
                else MomentScores(head, seen.moments)
            )
            batch.teacher_embeddings = seen.embeddings
        if self.objective.weights.needs_teacher_head:
            shared = cast(torch.Tensor, batch.embeddings)
            logits = None if self._chunked else teacher.head(shared)
            batch.teacher_head = self._scores(logits, self._teacher_head(teacher), shared)

    def _teacher_head(self, teacher: FrozenTeacher | CachedTeacher) -> Any:
        return teacher.shared_classifier if self._teacher_part is None else self._teacher_part

    def _scores(self, logits: Any, head: Any, embeddings: Any) -> Scores:
        if not self._chunked:
            return DenseScores(logits, head, embeddings)
        sampling = Sampling(self.args.class_sample_rate, self.args.seed, self.state.global_step)
        if self._split_head is None:
            return ChunkedScores(head, embeddings, sampling)
        return ShardedScores(head, self._split_head.start, embeddings, sampling)

    # Optimizer

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that weight decay acts on; see `decay_norm_and_bias`."""
        if self.args.decay_norm_and_bias:
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The schedule of `lr_decay_epochs` where that is set, and otherwise that of `lr_scheduler_type`."""
        if self.lr_scheduler is None and self.args.lr_decay_epochs is not None:
            per_epoch = num_training_steps / self.args.num_train_epochs
            milestones = [round(epoch * per_epoch) for epoch in self.args.lr_decay_epochs]
            rate = self.args.lr_decay_rate
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                cast(torch.optim.Optimizer, optimizer or self.optimizer),
                lambda step: rate ** sum(step >= milestone for milestone in milestones),
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    # Logging

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean of every loss part since the last log, as `loss_<part>`, to the training logs."""
        if "loss" in logs and self.meter.count:
            logs.update(self._read_meter())
        super().log(logs, start_time)

    def _read_meter(self) -> dict[str, float]:
        self._check_finite()
        means = self.accelerator.reduce(self.meter.sums() / self.meter.count, reduction="mean").tolist()
        self.meter.reset()
        return {f"loss_{name}": mean for name, mean in zip(self.meter.names, means, strict=True) if name != "loss"}

    def _check_finite(self) -> None:
        if not self.meter.names:
            return
        first_bad = self.meter.first_bad()
        if self.args.world_size > 1:
            # accelerate's `reduce` has no minimum.
            torch.distributed.all_reduce(first_bad, op=torch.distributed.ReduceOp.MIN)
        kept = run_folder.last_checkpoint(self.folder)
        remedy = f"Lower the learning rate or use float32; last good checkpoint: {kept or 'none yet'}"
        self.meter.check(first_bad, remedy)
