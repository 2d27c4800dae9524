"""What is refused before the first step."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..losses import LossWeights
from ..losses.companions import AdaDistillLoss, SimKDLoss
from ..losses.products import has_bfloat16
from ..models import IGNORED_LABEL, CosineHead, HeadShareModel, check_head_fits, check_label_maps, find_classifier
from ..models.margins import AdaptiveMargin
from .backends import wants_deepspeed, wants_fsdp
from .config import DistillationConfig
from .embedder import has_classes


logger = logging.getLogger(__name__)


def check_arguments(model: Any, args: Any, others: Mapping[str, Any]) -> None:
    """
    Args:
        model (`Any`): The student.
        args (`Any`): The configuration.
        others (`Mapping[str, Any]`): Further arguments of `transformers.Trainer`.

    Raises:
        ValueError: One of them is nothing that [`DistillationTrainer`] can use.
    """
    if not isinstance(args, DistillationConfig):
        raise ValueError(
            f"`args` is a {type(args).__name__}; use DistillationConfig, which is TrainingArguments with the fields of the "
            "method"
        )
    if model is None or others.get("model_init") is not None:
        raise ValueError(
            "`model_init` and `hyperparameter_search` are not supported: projector and losses are made for one student; pass "
            "`model`, and start one run, with an `output_dir` of its own, for every setting"
        )
    if others.get("compute_loss_func") is not None:
        raise ValueError("`compute_loss_func` has no effect: the loss is that of the method")


def check_run(
    student: nn.Module, teacher: nn.Module | None, args: DistillationConfig, train_dataset: Any, eval_dataset: Any
) -> None:
    """
    All checks of this module.

    Raises:
        ValueError: As [`check_model`], [`check_teacher`] and [`check_dataset`].
    """
    check_model(student, "student")
    _check_activation_checkpointing(student, args)
    if teacher is not None:
        check_model(teacher, "teacher")
    check_teacher(student, teacher, args)
    check_dataset(train_dataset, student, "train_dataset")
    check_dataset(eval_dataset, student, "eval_dataset")
    check_precision(args)


def _check_activation_checkpointing(student: nn.Module, args: DistillationConfig) -> None:
    # transformers 5 has called it by both names.
    names = [name for name in ("activation_checkpointing", "gradient_checkpointing") if getattr(args, name, False)]
    if names and not getattr(student, "supports_gradient_checkpointing", True):
        raise ValueError(
            f"`{names[0]}` is set, but {type(student).__name__} has no blocks to compute again; leave it out, and take a smaller "
            "`per_device_train_batch_size` with `gradient_accumulation_steps`"
        )


def check_precision(args: DistillationConfig) -> None:
    """
    Warns where bfloat16 is imitated. No error: a run that was begun elsewhere may have to go on here.
    """
    wanted = {"bf16": args.bf16, "teacher_precision": args.teacher_precision == "bfloat16"}
    names = [name for name, rounds in wanted.items() if rounds]
    if names and args.device.type == "cpu" and not has_bfloat16(args.device):
        logger.warning(
            "PyTorch has no instructions for bfloat16 on this processor, and imitates them far slower than it computes in "
            "float32; set `%s` to %s, unless this run has to go on with it",
            names[0],
            "false" if names[0] == "bf16" else "float32",
        )


def check_teacher(student: nn.Module, teacher: nn.Module | None, args: DistillationConfig) -> None:
    """
    Checks that the teacher is there exactly when a loss part or an option needs it, and that it fits.

    Raises:
        ValueError: It is missing, of no use, or its embedding or, where the method reads them, its classes differ from the
            student's.
    """
    weights = args.loss_weights
    wanted = args.needs_teacher or args.student_head != "own" or args.eval_teacher_head_weight > 0
    if teacher is None:
        if wanted:
            raise ValueError(f"method {args.method!r} with these weights and options needs a `teacher`")
        if args.projector is not None:
            raise ValueError("`projector` has no effect without a `teacher`")
        return
    if not wanted:
        raise ValueError(
            f"a teacher was given, but method {args.method or 'plain'!r} uses none; choose a method such as 'th_kd', "
            "or leave the teacher out"
        )
    if args.reads_teacher_classes:
        _check_classes(student, teacher, args)
    _check_scales(student, teacher, args)
    if weights.teacher_head_ce and isinstance(getattr(find_classifier(teacher), "margin", None), AdaptiveMargin):
        raise ValueError(
            "the teacher's AdaFace head measures the length of its own embeddings, so that its margin would be a constant "
            "on the student's; set `alpha_th=0` and `teacher_head_weight`, which has no margin, or method 'inherited' with "
            "an AdaFace student, whose head measures its own"
        )
    _check_companion(student, teacher, args)
    _check_embeddings(student, teacher, args, weights)


def _check_classes(student: nn.Module, teacher: nn.Module, args: DistillationConfig) -> None:
    if not has_classes(teacher):
        raise ValueError(
            f"the teacher has no classifier, and method {args.method or 'plain'!r} with these weights and options reads one; give "
            "a teacher with it (class centers for `hub.convert`), or take a method on embeddings alone, e.g. 'embedding', 'rkd', "
            "'crd'"
        )
    check_label_maps(teacher, student)


def _check_scales(student: nn.Module, teacher: nn.Module, args: DistillationConfig) -> None:
    if args.kd_scale is None:
        return
    for role, model in (("teacher", teacher), *([("student", student)] if args.loss_weights.kd > 0 else [])):
        head = find_classifier(model)
        if not isinstance(head, CosineHead):
            raise ValueError(
                f"`kd_scale` needs cosine heads, but that of the {role} is a {type(head).__name__}; use `temperature`"
            )


def _check_companion(student: nn.Module, teacher: nn.Module, args: DistillationConfig) -> None:
    loss = args.companion_loss
    if loss is None:
        return
    for name, wanted in (("fsdp", wants_fsdp(args)), ("deepspeed", wants_deepspeed(args))):
        if wanted:
            raise ValueError(
                f"`{name}` was not tried with a companion loss, here {args.companion_name}; leave it out: the same run is "
                "then data parallel (DDP)"
            )
    if issubclass(loss, SimKDLoss):
        _check_map_projector(student, find_classifier(teacher).in_features)
    if issubclass(loss, AdaDistillLoss) and not isinstance(find_classifier(student), CosineHead):
        raise ValueError(
            "AdaDistill trains the direction of embeddings alone, which a linear classifier does not read; take a student "
            "with a face head, `head_type='arcface'` or another one"
        )


def _check_map_projector(student: Any, width: int) -> None:
    projector = getattr(student.config, "map_projector", None)
    if projector is None or projector["out_channels"] != width:
        found = "none" if projector is None else f"one to {projector['out_channels']} channels"
        raise ValueError(
            f"SimKD needs a student with a map projector to the {width} channels that the teacher's classifier reads, and "
            f"this one has {found}; build it with HeadShareConfig(map_projector={{'out_channels': {width}}}), in a recipe "
            f"`student.map_projector: {{out_channels: {width}}}`"
        )


def _check_embeddings(student: nn.Module, teacher: nn.Module, args: DistillationConfig, weights: LossWeights) -> None:
    trains_projector = weights.needs_teacher_head or weights.embedding > 0
    if args.projector is not None and not trains_projector:
        raise ValueError("`projector` has no effect: no loss part puts the student's embedding beside the teacher's")
    if not (trains_projector or args.student_head != "own" or args.eval_teacher_head_weight > 0):
        return
    head, own = find_classifier(teacher), find_classifier(student)
    if args.student_head != "own" and head.in_features != own.in_features:
        raise ValueError(
            f"`student_head` is {args.student_head!r}, but the teacher's classifier reads embeddings of width "
            f"{head.in_features} and the student's have width {own.in_features}; build the student with "
            f"`HeadShareConfig(embedding_size={head.in_features}, projector='linear')`"
        )
    if args.projector is None:
        check_head_fits(head, own.in_features, "the student")
    elif own.in_features == head.in_features:
        raise ValueError(f"`projector` has no use: both embeddings have width {head.in_features}; leave it out")


def check_model(model: Any, role: str) -> None:
    """
    Checks that `model` is an image classifier that can be trained or can teach here.

    Raises:
        ValueError: It is a bare network, gives embeddings only, or holds its weights in half precision.
    """
    if isinstance(model, HeadShareModel):
        raise ValueError(
            f"the {role} is a HeadShareModel, which has no classifier; use HeadShareForImageClassification"
        )
    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            f"the {role} is a bare {type(model).__name__} without a configuration; load it with "
            "`AutoModelForImageClassification` (timm networks too), or build it as HeadShareForImageClassification"
        )
    half = [name for name, p in model.named_parameters() if p.dtype in (torch.float16, torch.bfloat16)]
    if role == "student" and half:
        raise ValueError(
            f"the student holds {half[0]} and others in half precision; load it with `dtype=torch.float32` and choose "
            "the precision of the training with `bf16` or `fp16`"
        )


def check_dataset(dataset: Any, model: nn.Module, name: str) -> None:
    """
    Checks the labels of a data set which can be asked for them against the classes of the model.

    Raises:
        ValueError: The set is empty, its labels are all the same or out of range, or it names the classes differently.
    """
    if dataset is None:
        return
    if hasattr(dataset, "__len__") and len(dataset) == 0:
        raise ValueError(f"{name} is empty")
    config: Any = model.config
    names = getattr(dataset, "label_names", None)
    if names is not None:
        _check_names(list(names), config, name)
    labels = labels_of(dataset)
    if labels is not None:
        _check_range(labels, config.num_labels, name)


def _check_names(names: list[str], config: Any, where: str) -> None:
    if len(names) != config.num_labels:
        raise ValueError(
            f"{where} has {len(names)} classes and the model {config.num_labels}; build the model with "
            f"num_labels={len(names)}"
        )
    for index, label in enumerate(names):
        known = config.id2label[index]
        if known not in (label, f"LABEL_{index}"):
            raise ValueError(f"class {index} is {label!r} in {where} but {known!r} in the model; align `id2label`")


def labels_of(dataset: Any) -> torch.Tensor | None:
    """The labels `(num_images,)` of a data set which can be asked for them without reading its images."""
    if isinstance(getattr(dataset, "labels", None), torch.Tensor):
        return dataset.labels
    columns = getattr(dataset, "column_names", None) or []
    found = [column for column in ("labels", "label") if column in columns]
    return torch.as_tensor(dataset.with_format(None)[found[0]][:]) if found else None


def _check_range(labels: torch.Tensor, num_labels: int, where: str) -> None:
    # The losses leave out images labelled -1; there is nothing to evaluate of them.
    lowest = IGNORED_LABEL if where == "train_dataset" else 0
    outside = ((labels < lowest) | (labels >= num_labels)).nonzero()
    if len(outside):
        row = int(outside[0])
        raise ValueError(f"row {row} of {where} has label {int(labels[row])}, outside of 0 to {num_labels - 1}")
    if where == "train_dataset" and len(labels[labels != IGNORED_LABEL].unique()) < 2:
        raise ValueError(f"{where} has only one class; a classifier needs two or more")
