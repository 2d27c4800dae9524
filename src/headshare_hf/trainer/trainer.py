"""The trainer: plain training, TH-KD, SH-KD and their relatives on `transformers.Trainer`."""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..data import collate
from ..data.input_adapter import InputAdapter, InputStatistics, input_statistics
from ..evaluation import ClassificationMetrics, Verifier
from ..losses import (
    ChunkedScores,
    DenseScores,
    DistillationObjective,
    Features,
    LigerScores,
    MomentScores,
    ObjectiveInputs,
    PretrainedCompanionLoss,
    Sampling,
    Scores,
    ShardedScores,
)
from ..models import embedding_tap, find_classifier
from .auxiliaries import auxiliary_losses
from .backends import check_backends, resolve_ddp
from .callbacks import EpochSeedCallback
from .checks import check_arguments, check_run
from .config import DistillationConfig
from .config_checks import MAPS
from .evaluating import something_to_evaluate
from .identity import run_identity
from .large_heads import check_kernel, check_label_smoothing, check_sharded_heads, frozen_twin, uses_chunks
from .last_batch import check_last_batch
from .loading import given_classifier, given_teacher
from .meter import LossMeter
from .optimizer_options import check_given_optimizer
from .optimizing import OptimizingTrainer
from .pretraining import pretrain
from .sharding import prepare_for_sharding
from .softening import DEFAULT_TEMPERATURE, resolve_softening
from .split_heads import SplitHead, leave_to_processes, part_of_head
from .student_module import StudentModule, StudentOutput, may_have_margin, set_head, trained_module
from .teacher import FrozenTeacher, TeacherOutput, teacher_autocast
from .teacher_cache import CachedTeacher, TeacherUse, check_cacheable


class DistillationTrainer(OptimizingTrainer):
    """
    Trains an image classifier, alone or from a teacher, with any method of the table.

    The teacher stays outside of the module that is trained: it is never wrapped, saved or changed, and its classifier
    is used where it is, so that a checkpoint holds the student and nothing else.

    Args:
        model (`nn.Module`): The student, a [`HeadShareForImageClassification`] or any transformers image classifier
            whose classifier is one linear layer on a pooled embedding.
        args ([`DistillationConfig`]):
            Method, weights and training arguments. What is filled in for these networks is in `trainer.args`, a copy of
            its fields: changes to `args` afterwards do not reach it.
        teacher (`nn.Module`, `str` or `Path`, *optional*):
            A trained image classifier, or its folder, Hub id or `id@revision`.
        train_dataset (`Dataset`, *optional*): Gives `pixel_values` and `labels`.
        eval_dataset (`Dataset`, *optional*): Likewise.
        processing_class (`Any`, *optional*): The student's image processor; saved with the weights.
        teacher_processing_class (`Any`, *optional*):
            The teacher's image processor, whose statistics and size its input is brought to. Without one, that in its
            folder or those that a timm network carries are used, and otherwise the student's.
        shared_head_from (`nn.Module`, `str` or `Path`, *optional*):
            A model whose classifier is copied into `model` and frozen before training: with a teacher network as
            `model`, the middle run of SH-KD.
        compute_metrics (`Callable`, *optional*):
            Called batch by batch, see `batch_eval_metrics` of transformers. Default: top-1, top-5 and mean per-class
            accuracy.
        verifier ([`Verifier`], *optional*):
            Pairs of images that the model is scored on after every epoch, e.g. those of Labeled Faces in the Wild. The
            best checkpoint may be chosen by them: `metric_for_best_model="lfw_accuracy"`.
        kwargs: Further arguments of `transformers.Trainer`, e.g. `callbacks`, `optimizers`, `data_collator`.

    Raises:
        ValueError: Student, teacher, options or data do not fit together; see [`check_run`].
    """

    def __init__(
        self,
        model: nn.Module,
        args: DistillationConfig,
        teacher: nn.Module | str | Path | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        teacher_processing_class: Any = None,
        shared_head_from: nn.Module | str | Path | None = None,
        compute_metrics: Callable[..., dict[str, float]] | None = None,
        verifier: Verifier | None = None,
        **kwargs: Any,
    ) -> None:
        check_arguments(model, args, kwargs)
        # What is filled in below is for these networks; the caller may give the same fields for others, or replace some.
        args = copy.copy(args)
        teacher, teacher_processing_class = given_teacher(teacher, teacher_processing_class)
        shared_head_from = given_classifier(shared_head_from)
        check_run(model, teacher, args, train_dataset, eval_dataset)
        resolve_softening(args, model, teacher)
        set_head(model, teacher, args, shared_head_from)
        self.identity = run_identity(model, teacher, shared_head_from, args, (train_dataset, eval_dataset))
        self.objective: DistillationObjective = DistillationObjective(
            args.loss_weights, args.temperature or DEFAULT_TEMPERATURE, args.kd_scale, args.embedding_distance
        )
        self.meter = LossMeter()
        check_sharded_heads(args)
        self._chunked = uses_chunks(args, model, teacher)
        self._head = find_classifier(model) if may_have_margin(model) or self._chunked else None
        check_kernel(args, self._head, self._chunked)
        check_label_smoothing(args, model, teacher, self._chunked)
        self._needs_embedding = args.meets_at_embedding or self._head is not None
        statistics = input_statistics(processing_class), input_statistics(teacher_processing_class, teacher)
        adapter = InputAdapter(*statistics) if teacher is not None else InputAdapter(None, None)
        trained = trained_module(
            model, teacher, args, train_dataset, adapter, not self._chunked, self._needs_embedding
        )
        self._auxiliaries = trained.auxiliaries if isinstance(trained, StudentModule) else nn.ModuleDict()
        resolve_ddp(args, model, self._auxiliaries)
        self._teacher_part: nn.Module | None = None
        self._tap = embedding_tap(model) if trained is model and self._needs_embedding else None
        kwargs.setdefault("data_collator", collate)
        super().__init__(
            model=trained,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=something_to_evaluate(eval_dataset, verifier, args),
            processing_class=processing_class,
            compute_metrics=compute_metrics or ClassificationMetrics(cast(Any, model).config.num_labels),
            **kwargs,
        )
        check_backends(self)
        check_given_optimizer(self.optimizer, trained.training_only() if isinstance(trained, StudentModule) else {})
        # transformers before 5.20 has no `loss_is_scaled_for_ga` and decides by this attribute alone.
        self.model_accepts_loss_kwargs = False
        self.label_names = ["labels"]
        self.add_callback(EpochSeedCallback())
        self._watch(verifier, model, train_dataset)
        self.teacher = None if teacher is None else self._freeze_teacher(teacher, adapter, statistics)
        # A CPU takes the layout from the images alone, so that the weights stay as the user has them.
        if args.channels_last and args.device.type != "cpu":
            nn.ModuleList(filter(None, (trained, teacher))).to(memory_format=torch.channels_last)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            prepare_for_sharding(trained, self.accelerator)
        if args.shard_heads:
            self._split_classes(trained, model, teacher)

    def _split_classes(self, trained: nn.Module, model: nn.Module, teacher: nn.Module | None) -> None:
        self._split_head = SplitHead(find_classifier(model))
        leave_to_processes(self._split_head.head, trained)
        if teacher is not None:
            whole = find_classifier(teacher)
            self._teacher_part = part_of_head(whole, self._split_head.start, self._split_head.stop, self.args.device)
            if isinstance(self.teacher, FrozenTeacher):
                self.teacher.leave_classifier()

    def _freeze_teacher(
        self,
        teacher: nn.Module,
        adapter: InputAdapter,
        statistics: tuple[InputStatistics | None, InputStatistics | None],
    ) -> FrozenTeacher | CachedTeacher:
        args = self.args
        half = next(teacher.parameters()).dtype != torch.float32
        if half and args.teacher_precision == "float32":
            raise ValueError("`teacher_precision` is 'float32', but the teacher's weights are not; load it in float32")
        autocast = teacher_autocast(args.teacher_precision, args.device, self.accelerator.autocast)
        needs_embedding = args.meets_at_embedding or args.kd_scale is not None or self._chunked
        reads = needs_embedding, not self._chunked, args.fold_teacher, len(self._auxiliaries) > 0
        with_maps = bool(args.teacher_reads & MAPS)
        frozen = partial(FrozenTeacher, teacher, args.device, adapter, autocast, *reads, with_maps=with_maps)
        if args.teacher_cache is None:
            return frozen()
        check_cacheable(self.train_dataset, self.data_collator)
        compares = args.loss_weights.needs_teacher_embedding or "embeddings" in args.teacher_reads
        use = TeacherUse(needs_embedding, not self._chunked, self._chunked or compares, self._moments_at(teacher))
        return CachedTeacher(teacher, frozen, statistics, args.device, autocast, use)

    def _moments_at(self, teacher: nn.Module) -> float | None:
        if not self.args.teacher_cache_moments:
            return None
        if not self._chunked or self.args.shard_heads:
            raise ValueError(
                "`teacher_cache_moments` is for losses over chunks of classes in one process; leave it out, or set "
                "`chunked_losses` and leave out `shard_heads`"
            )
        return self.objective.temperature_of(find_classifier(teacher))

    def _before_first_step(self) -> float:
        check_last_batch(cast(nn.Module, self.model), self.args, self.train_dataset)
        companion = self.auxiliaries.get("companion")
        if isinstance(companion, PretrainedCompanionLoss) and not companion.pretrained:
            return pretrain(self)
        return super()._before_first_step()

    # Training step

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """0: transformers would walk over all layers at every step for 6 · parameters · pixels, the count of no CNN."""
        return 0

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        # For the log alone transformers takes the norm at every step, and multiplies all gradients by 1 for it.
        step, every = self.state.global_step + 1, self.args.logging_strategy
        unlogged = every == "no" or (every == "steps" and step % self.state.logging_steps and step > 1)
        return None if grad_norm is None and unlogged else super()._get_grad_norm(model, grad_norm)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The weighted sum of the loss parts, each a mean over the batch. See `transformers.Trainer.compute_loss`."""
        pixel_values = self._in_layout(inputs["pixel_values"])
        output = self._run_student(model, pixel_values)
        own = self._scores(output.logits, self._head, output.embeddings, self._twin_head)
        batch = ObjectiveInputs(inputs["labels"], own=own, embeddings=output.shared)
        if self.teacher is not None:
            seen = self._ask_teacher(self.teacher, pixel_values, inputs, batch)
            sides = _features(output), _features(seen, self.teacher.head)
            batch.auxiliary = auxiliary_losses(self._auxiliaries, self.objective.weights, *sides, inputs)
            batch.companion_share = self._companion_share()
        # accelerate leaves autocast with the student, which has computed the logits in it; chunks compute them only now.
        with self.accelerator.autocast() if self._chunked else nullcontext():
            parts = self.objective(batch)
        if model.training:
            self.meter.add(parts, self.state.global_step + 1)
        return (parts["loss"], {"logits": output.logits}) if return_outputs else parts["loss"]

    def _ask_teacher(
        self,
        teacher: FrozenTeacher | CachedTeacher,
        pixel_values: torch.Tensor,
        inputs: dict[str, torch.Tensor],
        batch: ObjectiveInputs,
    ) -> TeacherOutput:
        """Adds to `batch` what the method wants of the teacher, and returns what the teacher has seen."""
        seen = TeacherOutput(None, None)
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
        return seen

    def _companion_share(self) -> float:
        """Share of the companion's weight in the present epoch, which is counted from 1."""
        epochs = self.args.companion_warmup_epochs
        return min(1.0, (math.floor(self.state.epoch or 0) + 1) / epochs) if epochs else 1.0

    def _teacher_head(self, teacher: FrozenTeacher | CachedTeacher) -> Any:
        return teacher.shared_classifier if self._teacher_part is None else self._teacher_part

    @cached_property
    def _twin_head(self) -> nn.Module | None:
        # First asked for by a step, when weights have been loaded, placed and split.
        if not self._chunked or self.teacher is None:
            return None
        return frozen_twin(self._head, self._teacher_head(self.teacher))

    def _scores(self, logits: Any, head: Any, embeddings: Any, twin: nn.Module | None = None) -> Scores:
        if not self._chunked:
            return DenseScores(logits, head, embeddings, self.args.label_smoothing_factor)
        sampling = Sampling(self.args.class_sample_rate, self.args.seed, self.state.global_step)
        if self._split_head is None:
            kind = LigerScores if self.args.large_head_kernel == "liger" else ChunkedScores
            return kind(head, embeddings, sampling, twin)
        return ShardedScores(head, self._split_head.start, embeddings, sampling, twin)


def _features(output: StudentOutput | TeacherOutput, head: Any = None) -> Features:
    """What the auxiliary losses read of a student or a teacher."""
    return Features(**(output.maps or {}), embeddings=output.embeddings, logits=output.logits, head=head)
