"""The stage of training that some companions have before the student's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn
from transformers.trainer_utils import SaveStrategy

from ..data.randomness import seeded_generators
from ..losses import Features, PretrainedCompanionLoss
from ..losses.companions import PRETRAINING_EPOCHS
from . import run_folder
from .callbacks import EpochSeedCallback
from .config import DistillationConfig
from .meter import LossMeter
from .optimizing import OptimizingTrainer
from .student_module import StudentModule
from .teacher import FrozenTeacher


# Below `output_dir`.
PRETRAINING = "pretraining"


class PretrainingModule(StudentModule):
    """
    The student and a companion, with the loss of the first stage inside: DDP then finds out by itself which layers of the
    student it reaches.

    Args:
        student (`nn.Module`): An image classifier.
        companion ([`PretrainedCompanionLoss`]): The loss.
    """

    def __init__(self, student: nn.Module, companion: PretrainedCompanionLoss) -> None:
        auxiliaries = nn.ModuleDict({"companion": companion})
        super().__init__(student, auxiliaries=auxiliaries, with_embeddings=False, with_maps=True)

    @property
    def companion(self) -> PretrainedCompanionLoss:
        """The loss."""
        return cast(PretrainedCompanionLoss, self.auxiliaries["companion"])

    def forward(self, pixel_values: torch.Tensor, teacher: Features) -> torch.Tensor:  # type: ignore[override]
        """The loss of a batch, of shape `()`. The student is run only where it learns."""
        runs = self.companion.pretrains_backbone
        student = Features(**super().forward(pixel_values)["maps"]) if runs else None
        return self.companion.pretraining_loss(student, teacher)

    def learning(self) -> Iterator[nn.Parameter]:
        """What is trained in this stage. Layers of the student that the loss does not reach get no gradient."""
        yield from self.companion.pretraining_parameters()
        if self.companion.pretrains_backbone:
            yield from (parameter for parameter in self.student.parameters() if parameter.requires_grad)


class PretrainingTrainer(OptimizingTrainer):
    """
    Trains what a companion needs before the training proper, in a folder of its own below that of the run.

    Args:
        trainer ([`DistillationTrainer`]): Of the run, whose student, companion, teacher and images these are.
    """

    def __init__(self, trainer: Any) -> None:
        self.identity = {**trainer.identity, "stage": PRETRAINING}
        self.meter = LossMeter()
        self.module = PretrainingModule(trainer.student, trainer.auxiliaries["companion"])
        super().__init__(
            model=self.module,
            args=_arguments(trainer.args, self.module.companion.pretrains_backbone),
            train_dataset=trainer.train_dataset,
            data_collator=trainer.data_collator,
            processing_class=trainer.processing_class,
        )
        self.model_accepts_loss_kwargs = False
        self.add_callback(EpochSeedCallback())
        self.teacher = trainer.teacher

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The companion's own loss of this stage, a mean over the batch."""
        pixel_values = self._in_layout(inputs["pixel_values"])
        seen = cast(FrozenTeacher, self.teacher)(pixel_values)
        loss = model(pixel_values, Features(**(seen.maps or {})))
        self.meter.add({PRETRAINING: loss}, self.state.global_step + 1)
        return (loss, {}) if return_outputs else loss

    def complete(self) -> float:
        """
        Brings the stage to its end, whatever there is of it already in its folder.

        Returns:
            `float`: Its wall time in seconds, over all sessions.

        Raises:
            RunFolderError: The folder holds the stage of another run, or lacks the last checkpoint of a finished one.
        """
        kept = run_folder.last_checkpoint(self.folder)
        if run_folder.is_finished(self.folder):
            self._take_over(kept)
        else:
            with _only_learning(self.module):
                self.train(resume_from_checkpoint=kept)
            if self.is_world_process_zero():
                run_folder.finish(self.folder, {"train_seconds": self.train_seconds})
            self.accelerator.wait_for_everyone()
        self.module.companion.finish_pretraining()
        return (run_folder.read_run(self.folder) or {})["results"]["train_seconds"]

    def _take_over(self, kept: str | None) -> None:
        run_folder.check_identity(self.folder, run_folder.read_run(self.folder) or {}, self.identity)
        if kept is None:
            raise run_folder.RunFolderError(
                f"{self.folder} is finished, but its checkpoint is gone; remove the folder, and the stage runs again"
            )
        self._load_from_checkpoint(kept)


def pretrain(trainer: Any) -> float:
    """
    The first stage of the companion of `trainer`, done or taken over from its folder. What is drawn afterwards does not
    depend on which.

    Args:
        trainer ([`DistillationTrainer`]): With a [`PretrainedCompanionLoss`].

    Returns:
        `float`: Wall time of the stage in seconds.

    Raises:
        RunFolderError: As [`PretrainingTrainer.complete`].
    """
    devices = [] if trainer.args.device.type == "cpu" else [trainer.args.device]
    with seeded_generators(), torch.random.fork_rng(devices):
        return PretrainingTrainer(trainer).complete()


def _arguments(args: DistillationConfig, pretrains_backbone: bool) -> DistillationConfig:
    """Those of the run, at a learning rate that stays, without evaluation, and with checkpoints in any case."""
    in_steps = SaveStrategy(args.save_strategy) is SaveStrategy.STEPS
    return replace(
        args,
        output_dir=f"{args.output_dir}/{PRETRAINING}",
        num_train_epochs=args.pretraining_epochs or PRETRAINING_EPOCHS,
        max_steps=-1,
        learning_rate=args.pretraining_learning_rate or args.learning_rate,
        lr_scheduler_type="constant",
        lr_scheduler_kwargs=None,
        lr_decay_epochs=None,
        warmup_steps=0,
        eval_strategy="no",
        eval_on_start=False,
        load_best_model_at_end=False,
        # The last one is what the training proper starts from.
        save_strategy="steps" if in_steps else "epoch",
        save_total_limit=1,
        save_only_model=False,
        push_to_hub=False,
        report_to="none",
        torch_compile=False,
        # Either of them sets it again.
        torch_compile_backend=None,
        torch_compile_mode=None,
        ddp_find_unused_parameters=pretrains_backbone,
    )


@contextmanager
def _only_learning(module: PretrainingModule) -> Iterator[None]:
    wanted = {id(parameter) for parameter in module.learning()}
    before = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(id(parameter) in wanted)
    try:
        yield
    finally:
        for parameter, learned in before:
            parameter.requires_grad_(learned)
