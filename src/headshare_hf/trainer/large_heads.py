"""When the losses are computed over classes in chunks, so that no tensor of images times classes exists."""

from typing import Any

import torch
from torch import nn
from transformers.training_args import ParallelMode

from ..losses import CHUNKED_FROM, liger_loss
from ..models import CosineHead, HeadShareForImageClassification, find_classifier
from .backends import wants_deepspeed, wants_fsdp
from .config import DistillationConfig


# "auto" is "chunked": no other was measured to be faster.
KERNELS = ("auto", "chunked", "liger")


def uses_chunks(args: DistillationConfig, student: nn.Module, teacher: nn.Module | None) -> bool:
    """
    Whether the losses of this run are computed in chunks: what `chunked_losses` says, and by itself from
    `CHUNKED_FROM` classes on where both networks allow it.

    Raises:
        ValueError: `chunked_losses`, or an option that needs it, is set but the networks do not allow it.
    """
    if args.class_sample_rate != 1 and not 0 < args.class_sample_rate < 1:
        raise ValueError(f"`class_sample_rate` is {args.class_sample_rate}; it must be in (0, 1]")
    wanted = "shard_heads" if args.shard_heads else "class_sample_rate" if args.class_sample_rate != 1 else None
    if wanted is not None and args.chunked_losses is False:
        raise ValueError(f"`{wanted}` needs losses over chunks of classes; leave out `chunked_losses`")
    if args.chunked_losses is None and wanted is None:
        many = getattr(getattr(student, "config", None), "num_labels", 0) >= CHUNKED_FROM
        return many and _obstacle(args, student, teacher) is None
    if args.chunked_losses is False:
        return False
    obstacle = _obstacle(args, student, teacher)
    if obstacle is not None:
        raise ValueError(f"`{wanted or 'chunked_losses'}` is set, but {obstacle}; leave it out")
    return True


def check_kernel(args: DistillationConfig, head: nn.Module | None, chunked: bool) -> None:
    """
    Args:
        args ([`DistillationConfig`]): With `large_head_kernel`.
        head (`nn.Module`, *optional*): The student's classifier.
        chunked (`bool`): What [`uses_chunks`] said.

    Raises:
        ValueError: `large_head_kernel` is unknown, or cannot be used here.
        ImportError: It is not installed.
    """
    kernel = args.large_head_kernel
    if kernel not in KERNELS:
        raise ValueError(f"`large_head_kernel` is {kernel!r}; allowed: {', '.join(KERNELS)}")
    if kernel != "liger":
        return
    obstacles = {
        "losses are not computed over chunks; set `chunked_losses`": not chunked,
        "`shard_heads` splits the classes": args.shard_heads,
        "`class_sample_rate` leaves classes out": args.class_sample_rate != 1,
        "the student has no linear classifier that learns": not _is_learning_linear(head),
        "its kernels need a GPU": args.device.type != "cuda",
    }
    found = [obstacle for obstacle, is_there in obstacles.items() if is_there]
    if found:
        raise ValueError(f"`large_head_kernel` is 'liger', but {found[0]}; or leave `large_head_kernel` out")
    liger_loss()


def _is_learning_linear(head: nn.Module | None) -> bool:
    return isinstance(head, nn.Linear) and head.weight.requires_grad


def frozen_twin(head: nn.Module | None, teacher_head: nn.Module | None) -> nn.Module | None:
    """
    `teacher_head` where `head` is a frozen copy of it, as with `student_head="teacher_frozen"`, and `None` otherwise. All
    weights are compared, so that it is to be asked once and not at every step.
    """
    if head is None or teacher_head is None:
        return None
    own, others = dict(head.named_parameters()), dict(teacher_head.named_parameters())
    same_kind = isinstance(head, CosineHead) == isinstance(teacher_head, CosineHead)
    same_scale = getattr(head, "scale", None) == getattr(teacher_head, "scale", None)
    if not same_kind or not same_scale or own.keys() != others.keys():
        return None
    return teacher_head if all(_is_frozen_copy(own[name], others[name]) for name in own) else None


def _is_frozen_copy(parameter: nn.Parameter, other: nn.Parameter) -> bool:
    if parameter.requires_grad or other.requires_grad or parameter.dtype != other.dtype:
        return False
    return parameter.device == other.device and torch.equal(parameter, other)


def check_label_smoothing(
    args: DistillationConfig, student: nn.Module, teacher: nn.Module | None, chunked: bool
) -> None:
    """
    Raises:
        ValueError: `label_smoothing_factor` is set where no logits exist, or for a head with a scale of its own, on whose
            margin it would pull.
    """
    read = [student if args.loss_weights.ce else None, teacher if args.loss_weights.teacher_head_ce else None]
    if args.label_smoothing_factor and (chunked or any(isinstance(_head(model), CosineHead) for model in read)):
        raise ValueError(
            "`label_smoothing_factor` is for linear classifiers whose logits are computed: not for cosine and face heads, and "
            "not for losses over chunks of classes; leave it out, or set `chunked_losses` to false"
        )


def _head(model: nn.Module | None) -> nn.Module | None:
    return None if model is None else getattr(model, "classifier", None)


def check_sharded_heads(args: DistillationConfig) -> None:
    """
    Raises:
        ValueError: `shard_heads` is set with something that does not go together with it.
    """
    if not args.shard_heads:
        return
    if args.parallel_mode != ParallelMode.DISTRIBUTED or args.world_size < 2:
        raise ValueError(
            "`shard_heads` needs several processes that each train (DDP); start them with `accelerate launch`"
        )
    conflicts = {
        "fsdp": wants_fsdp(args),
        "deepspeed": wants_deepspeed(args),
        # Every process would find other overflows, and skip other steps.
        "fp16": args.fp16,
        # The norm of the gradient of a process is not that of the whole.
        "max_grad_norm": bool(args.max_grad_norm),
        "eval_teacher_head_weight": bool(args.eval_teacher_head_weight),
        # Every process moves all centers.
        f"companion: {args.companion_name}": args.predicts_with_centers,
    }
    found = [name for name, is_set in conflicts.items() if is_set]
    if found:
        raise ValueError(f"`shard_heads` cannot be combined with `{found[0]}`; leave one of them out")


def _obstacle(args: DistillationConfig, student: Any, teacher: nn.Module | None) -> str | None:
    if "logits" in args.student_reads | args.teacher_reads:
        return f"the companion {args.companion_name} reads the matrix of logits that chunks do without"
    if not isinstance(student, HeadShareForImageClassification):
        return f"the student is a {type(student).__name__}, whose classifier cannot be run apart from it"
    if teacher is None:
        return None
    try:
        find_classifier(teacher)
    except ValueError as error:
        return f"the teacher cannot be asked for its embedding ({error})"
    return None
