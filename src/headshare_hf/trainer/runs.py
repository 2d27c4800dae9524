"""Runs that pick up where they are: not started, cut in the middle, or finished; and SH-KD as a chain of three."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..models import HeadShareConfig, with_head_length
from . import run_folder
from .callbacks import HeadSimilarityCallback
from .checkpointing import load_weights
from .config import DistillationConfig
from .config_checks import unread_options
from .embedder import has_classes
from .methods import get_method
from .trainer import DistillationTrainer


logger = logging.getLogger(__name__)

TEMPORARY_STUDENT, SHARED_TEACHER, FINAL_STUDENT = "1_temporary_student", "2_teacher", "3_student"


def run_or_reuse(trainer: DistillationTrainer) -> dict[str, float]:
    """
    Brings the run of `trainer` to its end, whatever there is of it already in its folder.

    A finished run is loaded, a run that was cut goes on from its last whole checkpoint, and anything else starts. The
    student, its processor and the results are saved at the end.

    Args:
        trainer ([`DistillationTrainer`]): Ready to train.

    Returns:
        `dict[str, float]`: The metrics on the evaluation set (fractions), and `train_seconds`.

    Raises:
        RunFolderError: The folder holds another run.
    """
    folder = trainer.folder
    if run_folder.is_finished(folder):
        return _reuse(trainer, folder)
    checkpoint = run_folder.last_checkpoint(folder)
    if checkpoint is not None:
        logger.info("%s: going on from %s", folder, checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = trainer.train_seconds
    results = trainer.evaluate() if trainer.eval_dataset is not None else {}
    results.update(trainer.verify())
    results["train_seconds"] = seconds
    # Without pushing: a model is published with its card, which needs these results.
    trainer.save_model(_internal_call=True)
    if trainer.is_world_process_zero():
        run_folder.finish(folder, results)
    trainer.accelerator.wait_for_everyone()
    return results


def _reuse(trainer: DistillationTrainer, folder: Path) -> dict[str, float]:
    record = run_folder.read_run(folder) or {}
    run_folder.check_identity(folder, record, trainer.identity)
    logger.info("%s is finished and is used as it is", folder)
    load_weights(trainer.student, folder)
    _take_thresholds(trainer.student.config, folder)
    return record["results"]


def _take_thresholds(config: Any, folder: Path) -> None:
    # They are measured and stored after the training; publishing the student must not lose them.
    if isinstance(config, HeadShareConfig):
        config.verification_thresholds = HeadShareConfig.from_pretrained(folder).verification_thresholds


@dataclass
class StudentHeadStages:
    """
    What the three runs of SH-KD (arXiv 2201.06945, section 3.2) are made of.

    Attributes:
        new_student (`Callable[[int], nn.Module]`): Builds a fresh student from a seed; called for two of the runs.
        new_teacher (`Callable[[int], nn.Module]`): Builds the teacher that will be trained around the student's head;
            it may start from trained weights.
        temporary_method (`str`): Method of the first run. The paper allows any; `"plain"` uses labels alone.
        teacher (`nn.Module`, *optional*): An ordinary teacher, for a `temporary_method` that needs one.
        teacher_processing_class (`Any`, *optional*): Its image processor.
        temporary_student (`nn.Module`, *optional*): A student that is trained already; the first run is then left out.
        temporary_epochs (`float`, *optional*): Epochs of the first run; those of the last by default.
        teacher_epochs (`float`, *optional*): Epochs of the second run; those of the last by default.
        head_length (`float`, *optional*): Mean length of the class vectors of the second run, in place of that which the
            temporary student gave them; see [`with_head_length`].
    """

    new_student: Callable[[int], nn.Module]
    new_teacher: Callable[[int], nn.Module]
    temporary_method: str = "plain"
    teacher: nn.Module | None = None
    teacher_processing_class: Any = None
    temporary_student: nn.Module | None = None
    temporary_epochs: float | None = None
    teacher_epochs: float | None = None
    head_length: float | None = None

    def __post_init__(self) -> None:
        unused = self.temporary_method != "plain" or self.teacher is not None or self.temporary_epochs is not None
        if self.temporary_student is not None and unused:
            raise ValueError(
                "`temporary_student` is trained already: leave out `temporary_method`, `temporary_epochs` and `teacher`"
            )
        if self.teacher is not None and not get_method(self.temporary_method).needs_teacher:
            raise ValueError(f"`teacher` has no effect: temporary_method {self.temporary_method!r} uses none")


def run_student_head_kd(
    stages: StudentHeadStages, args: DistillationConfig, **trainer_kwargs: Any
) -> tuple[DistillationTrainer, dict[str, dict[str, float]]]:
    """
    SH-KD from beginning to end: a temporary student, the teacher around its frozen head, a new student from that
    teacher. Each run has its own folder below `args.output_dir`; called again, finished runs are reused and a cut one
    goes on.

    Args:
        stages ([`StudentHeadStages`]): The models.
        args ([`DistillationConfig`]): Of the last run, e.g. with `method="sh_kd"`, and `student_head="teacher_frozen"`
            to keep the shared head frozen there too. The other runs take everything but the loss from it.
        trainer_kwargs: Data sets and image processor, as [`DistillationTrainer`] takes them.

    Returns:
        `tuple[DistillationTrainer, dict[str, dict[str, float]]]`: The trainer of the last run, and the results of each
        run by the name of its folder.
    """
    folder, results = Path(str(args.output_dir)), {}
    temporary = stages.temporary_student
    if temporary is None:
        temporary, results[TEMPORARY_STUDENT] = _train_temporary(stages, args, folder, trainer_kwargs)
    shared = DistillationTrainer(
        stages.new_teacher(args.seed),
        _stage(args, folder / SHARED_TEACHER, "plain", stages.teacher_epochs),
        shared_head_from=temporary if stages.head_length is None else with_head_length(temporary, stages.head_length),
        **trainer_kwargs,
    )
    results[SHARED_TEACHER] = run_or_reuse(shared)
    teacher = _plain_model(shared)
    # So that the card of the last student can say what it learned from.
    teacher.config._name_or_path = str(folder / SHARED_TEACHER)
    last = replace(args, output_dir=str(folder / FINAL_STUDENT))
    # Another seed than the temporary student's, because the paper's last student is a new one.
    final = DistillationTrainer(
        stages.new_student(args.seed + 1),
        last,
        teacher=teacher,
        # It was trained on images as the student's, whatever its first weights were made for.
        teacher_processing_class=trainer_kwargs.get("processing_class"),
        **trainer_kwargs,
    )
    attach_head_similarity(final, teacher)
    results[FINAL_STUDENT] = run_or_reuse(final)
    return final, results


def attach_head_similarity(trainer: DistillationTrainer, reference: nn.Module) -> None:
    """
    Adds a [`HeadSimilarityCallback`] that writes into the run's folder, where there are two heads to compare.

    Plain KD takes teachers without a shareable classifier, a teacher may be read by its embedding alone, and embeddings may
    differ in width: nothing is added then.
    """
    if not has_classes(reference):
        return
    try:
        plot = trainer.folder / "head_similarity.png"
        callback = HeadSimilarityCallback(trainer, reference, plot=plot)
    except ValueError as reason:
        logger.info("head similarity is not logged: %s", reason)
    else:
        trainer.add_callback(callback)


def _plain_model(trainer: DistillationTrainer) -> Any:
    """The trained model, whole, without the mixed precision that accelerate has put around its forward pass."""
    return trainer.accelerator.unwrap_model(trainer.whole_student(), keep_fp32_wrapper=False, keep_torch_compile=False)


def _train_temporary(
    stages: StudentHeadStages, args: DistillationConfig, folder: Path, trainer_kwargs: dict[str, Any]
) -> tuple[nn.Module, dict[str, float]]:
    first = _stage(args, folder / TEMPORARY_STUDENT, stages.temporary_method, stages.temporary_epochs)
    needs_teacher = first.needs_teacher
    trainer = DistillationTrainer(
        stages.new_student(args.seed),
        first,
        teacher=stages.teacher if needs_teacher else None,
        teacher_processing_class=stages.teacher_processing_class if needs_teacher else None,
        **trainer_kwargs,
    )
    results = run_or_reuse(trainer)
    return _plain_model(trainer), results


def _stage(args: DistillationConfig, folder: Path, method: str, epochs: float | None) -> DistillationConfig:
    """The arguments of an earlier run: those of the last, without its loss and head options."""
    own_loss: dict[str, Any] = dict.fromkeys(
        (
            "ce_weight",
            "kd_weight",
            "teacher_head_weight",
            "teacher_head_ce_weight",
            "embedding_weight",
            "contrastive_weight",
            "alpha_th",
            "companion",
            "companion_weight",
            "companion_options",
            "pretraining_epochs",
            "pretraining_learning_rate",
        )
    )
    row = get_method(method)
    own_loss |= unread_options(row)
    if not row.contrastive:
        own_loss |= {"num_negatives": None, "negatives": None, "contrastive_size": None}
    if not (row.kd or row.teacher_head or row.embedding or row.contrastive or row.companion):
        own_loss |= {"teacher_cache": None, "teacher_cache_dtype": "float32"}
    return replace(
        args,
        **own_loss,
        output_dir=str(folder),
        method=method,
        num_train_epochs=epochs or args.num_train_epochs,
        lr_decay_epochs=_scaled(args, epochs),
        companion_warmup_epochs=0.0,
        student_head="own",
        projector=None,
        teacher_cache_moments=False,
        eval_teacher_head_weight=0.0,
        push_to_hub=False,
    )


def _scaled(args: DistillationConfig, epochs: float | None) -> list[int] | None:
    if args.lr_decay_epochs is None or epochs is None:
        return args.lr_decay_epochs
    return [round(epoch * epochs / args.num_train_epochs) for epoch in args.lr_decay_epochs]
