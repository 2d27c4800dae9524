"""Runs that own their folder, and checkpoints that are whole, hold the student alone, and resume exactly."""

import json
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_utils import rotate_checkpoints
from transformers.training_args import ParallelMode

from ..models import LOADING_PROBLEMS
from . import run_folder
from .config import DistillationConfig
from .meter import NonFiniteLossError
from .sharding import (
    is_sharded,
    load_whole_optimizer_state,
    load_whole_state,
    local,
    plain_class,
    share_start,
    whole_copy,
    whole_optimizer_state,
    whole_state,
)
from .split_heads import SplitHead
from .student_module import StudentModule


class RunFolderTrainer(Trainer):
    """
    The part of [`DistillationTrainer`] that deals with its output folder.

    A checkpoint is written to a staging folder and renamed when it is complete, so that a process which is killed
    while it saves leaves the one before as the newest.
    """

    args: DistillationConfig
    identity: dict[str, Any]
    _staging: Path | None = None
    _has_trained = False
    _split_head: SplitHead | None = None
    # When the training began and, once it has, ended; seconds of a clock that never goes back.
    _started: float | None = None
    _ended: float | None = None
    _seconds_before = 0.0

    @property
    def folder(self) -> Path:
        """`output_dir`, which transformers fills in where it is not given."""
        return Path(str(self.args.output_dir))

    @property
    def train_seconds(self) -> float:
        """Wall time of the training in seconds, over all sessions that led to the present state."""
        if self._started is None:
            return self._seconds_before
        return self._seconds_before + (self._ended or time.monotonic()) - self._started

    @property
    def student(self) -> Any:
        """
        The model that is published: what was passed as `model`, without projector and wrappers. From the start of a
        training with FSDP on its tensors are split over the processes; see [`whole_student`].
        """
        module = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return module.student if isinstance(module, StudentModule) else module

    def whole_student(self) -> Any:
        """[`student`], or a copy with all of its weights where they are split. Every process has to call this."""
        return whole_copy(self.student) if is_sharded(self.student) else self.student

    @property
    def projector(self) -> nn.Module | None:
        """The training-only projector, if there is one."""
        return self._training_only().get("projector")

    @property
    def auxiliaries(self) -> dict[str, nn.Module]:
        """The losses with parameters, by the name of their weight."""
        return {name: module for name, module in self._training_only().items() if name != "projector"}

    def _training_only(self) -> dict[str, nn.Module]:
        module = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return module.training_only() if isinstance(module, StudentModule) else {}

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """
        As `transformers.Trainer.train`, in a folder that belongs to this run alone.

        Raises:
            RunFolderError: `output_dir` holds another run, or this one and `resume_from_checkpoint` is not set.
            NonFiniteLossError: A loss part is not finite; the last good checkpoint is kept.
        """
        if self.is_world_process_zero():
            run_folder.claim(self.folder, self.identity, bool(resume_from_checkpoint))
        self.accelerator.wait_for_everyone()
        if not resume_from_checkpoint:
            self._seconds_before = self._before_first_step()
        if not self._has_trained:
            self._start_together()
        self._has_trained = True
        self._started, self._ended = time.monotonic(), None
        if self._split_head is not None:
            self._split_head.split()
        output = super().train(resume_from_checkpoint, *args, **kwargs)
        self._ended = time.monotonic()
        if self._split_head is not None:
            self._split_head.join(self.optimizer)
        self._check_finite()
        return output

    def whole_classes(self) -> AbstractContextManager[None]:
        """
        Inside of it the student's classifier is whole in every process, where `shard_heads` splits it. Every process has to
        enter.
        """
        return nullcontext() if self._split_head is None else self._split_head.whole()

    def _start_together(self) -> None:
        if self.is_fsdp_enabled:
            share_start(cast(nn.Module, self.model))
        elif self.args.parallel_mode == ParallelMode.DISTRIBUTED:
            # accelerate takes a model that was prepared for an evaluation as prepared for training: it would not be
            # wrapped by DDP, and every process would train a network of its own.
            self.model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False, keep_torch_compile=False)
            self.model._is_accelerate_prepared = False
            self.model_wrapped = self.model

    def _before_first_step(self) -> float:
        """What comes before a training that starts, in its folder. Returns the seconds that it took."""
        return 0.0

    def _check_finite(self) -> None:
        raise NotImplementedError

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._check_finite()
        self._check_weights()
        with nullcontext() if self._split_head is None else self._split_head.collected(self.optimizer):
            self._save_whole_checkpoint(model, trial)

    def _save_whole_checkpoint(self, model: nn.Module, trial: Any) -> None:
        staging = self.folder / run_folder.STAGING
        self._staging = staging
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._staging = None
        self._name_best_checkpoint(staging)
        auxiliary = whole_state(nn.ModuleDict(self._training_only()))
        # Other processes may still be writing their random states.
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._publish_checkpoint(staging / f"checkpoint-{self.state.global_step}", auxiliary)
        self.accelerator.wait_for_everyone()

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # A run is published once, whole and with its card, by `push_to_hub`.
        pass

    def _name_best_checkpoint(self, staging: Path) -> None:
        best = self.state.best_model_checkpoint
        if best is not None and Path(best).parent == staging:
            # transformers found the best one where it is being written, which is about to be renamed.
            self.state.best_model_checkpoint = str(self.folder / Path(best).name)

    def _check_weights(self) -> None:
        tensors = {name: t for name, t in self.student.state_dict().items() if t.is_floating_point()}
        finite = torch.stack([local(t).isfinite().all() for t in tensors.values()]).int()
        if self.args.world_size > 1:
            torch.distributed.all_reduce(finite, op=torch.distributed.ReduceOp.MIN)
        broken = [name for name, good in zip(tensors, finite.tolist(), strict=True) if not good]
        if broken:
            kept = run_folder.last_checkpoint(self.folder)
            raise NonFiniteLossError(
                f"{', '.join(broken[:3])} is not finite at step {self.state.global_step}, so no checkpoint is written. "
                f"Lower the learning rate or use float32; last good checkpoint: {kept or 'none yet'}"
            )

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)

    def _publish_checkpoint(self, staged: Path, auxiliary: dict[str, torch.Tensor]) -> None:
        target = self.folder / staged.name
        self.state.save_to_json(str(staged / "trainer_state.json"))
        if auxiliary:
            plain = {name: tensor.contiguous() for name, tensor in auxiliary.items()}
            save_file(plain, staged / run_folder.AUXILIARY_FILE)
        run_folder.write_json(staged / run_folder.CLOCK_FILE, {"seconds": self.train_seconds})
        run_folder.publish_checkpoint(staged, target)
        rotate_checkpoints(
            output_dir=str(self.folder),
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=self.state.best_model_checkpoint,
            use_mtime=True,
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As `transformers.Trainer.save_model`: one whole student, however its weights are split in training."""
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            super().save_model(output_dir, _internal_call)
            return
        self._save(output_dir)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save")

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        student = self.whole_student()
        if self.args.should_save:
            self._write_student(student, output_dir or str(self.folder))

    def _write_student(self, student: Any, target: str) -> None:
        # Only what is published: no pickled arguments, no projector.
        student.save_pretrained(target)
        processor: Any = self.processing_class
        if processor is not None:
            processor.save_pretrained(target)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with nullcontext() if self._split_head is None else self._split_head.replaced():
            load_weights(self.student, resume_from_checkpoint)
        training_only = nn.ModuleDict(self._training_only())
        # A loss that has no state has left no file.
        if training_only.state_dict():
            load_whole_state(training_only, load_file(Path(resume_from_checkpoint) / run_folder.AUXILIARY_FILE))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        # Not in the form of FSDP, which no other number or kind of processes could read.
        state = whole_optimizer_state(cast(torch.optim.Optimizer, self.optimizer))
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(cast(Any, self.lr_scheduler).state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        clock = Path(checkpoint) / run_folder.CLOCK_FILE
        self._seconds_before = json.loads(clock.read_text())["seconds"] if clock.is_file() else 0.0
        if not self.is_deepspeed_enabled and not (Path(checkpoint) / OPTIMIZER_NAME).is_file():
            raise ValueError(
                f"{checkpoint} has no {OPTIMIZER_NAME}, so that the training cannot go on from there: it was written with "
                "`save_only_model`, or by DeepSpeed, which alone reads what it wrote"
            )
        if not self.is_fsdp_enabled and self._split_head is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        optimizer, scheduler = (
            torch.load(Path(checkpoint) / name, map_location="cpu", weights_only=True)
            for name in (OPTIMIZER_NAME, SCHEDULER_NAME)
        )
        with nullcontext() if self._split_head is None else self._split_head.replaced_states(self.optimizer):
            load_whole_optimizer_state(cast(torch.optim.Optimizer, self.optimizer), optimizer)
        cast(Any, self.lr_scheduler).load_state_dict(scheduler)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))


def load_weights(model: Any, folder: str | Path) -> None:
    """
    Reads the weights that `model.save_pretrained(folder)` wrote back into `model`.

    transformers stores some models under other names than they have in memory and renames them in `from_pretrained`
    only, so that loading the file itself would leave tensors as they are.

    Raises:
        ValueError: A tensor is missing, unexpected or of another shape; all are named.
    """
    loaded, info = plain_class(model).from_pretrained(
        folder, config=model.config, output_loading_info=True, ignore_mismatched_sizes=True
    )
    broken = {kind: sorted(map(str, info[kind])) for kind in LOADING_PROBLEMS if info[kind]}
    if broken:
        raise ValueError(f"the checkpoint {folder} does not fit the student: {broken}")
    load_whole_state(model, loaded.state_dict())
