"""
The losses over a class matrix whose rows are split over processes, for class counts that one process cannot hold.

Every process embeds its own images. The embeddings of all are gathered, each process compares all of them with its own
classes, and the statistics of the softmax, a few numbers an image, are gathered and combined (ArcFace's and Partial
FC's scheme, arXiv 1801.07698 and 2203.15565). Every process then has the same loss.

Gradients. The loss is the mean over the images of all processes. A shard of the classes gets exactly the rows that
one process with all images and classes would compute: it is complete, and must not be averaged over the processes, so
shards stay out of what DistributedDataParallel wraps. Embeddings get theirs from all shards, times the number of
processes: that is what a mean over the images of the one process would give them, and DistributedDataParallel, which
averages over the processes, thereby arrives at the gradient of one process. So these losses can be added to those that
each process computes for its own images.

The collectives are those of torch.distributed that keep their names from release to release; the functional ones are
in a module of its own internals, and are being renamed.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import once_differentiable

from .chunked_cross_entropy import LabelScores, combine_scores, label_scores, labelled_loss
from .chunked_kd import SoftenedScores, combine_softened, divergence, softened_scores
from .class_matrix import ClassMatrix
from .sampled_classes import sample_classes


def sharded_cross_entropy(
    embeddings: torch.Tensor,
    labels: torch.Tensor,
    head_shard: nn.Module,
    shard_start: int,
    group: dist.ProcessGroup | None = None,
    sample_rate: float = 1.0,
    seed: int = 0,
    step: int = 0,
) -> torch.Tensor:
    """
    [`chunked_cross_entropy`] of the images of all processes, with a part of the classes on each.

    All processes call it, with equally many images. The running statistics of a margin see the images of all.

    Args:
        embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): Of the images of this process.
        labels (`torch.Tensor` of `int64` and shape `(batch_size,)`):
            Class numbers among all classes; images labelled -1 are left out.
        head_shard (`nn.Module`): An `nn.Linear` or a [`CosineHead`] that has the classes of this process only.
        shard_start (`int`): Number of its first class. The shards share no class and leave none out.
        group (`ProcessGroup`, *optional*): The processes; all where not given.
        sample_rate, seed, step: As in [`chunked_cross_entropy`]; the same in all processes. The classes that are
            drawn do not depend on how they are split.

    Returns:
        `torch.Tensor` of shape `()`, the same in all processes. See the head of this module for its gradients.

    Raises:
        TypeError: The head is of another kind.
        ValueError: A label is in no shard, `sample_rate` is outside (0, 1], or the embeddings have another width than
            the head reads.
    """
    classes = ClassMatrix.of(head_shard)
    with torch.autocast(embeddings.device.type, enabled=False):
        # Gradients of several processes are added up, which a half precision would round.
        embeddings = gather_rows(embeddings.to(classes.dtype_with(embeddings)), group)
        labels = gather_rows(labels, group)
        chosen, columns = sample_classes(classes, labels - shard_start, sample_rate, seed, step, shard_start)
        own = label_scores(embeddings, columns, chosen)
        parts = [LabelScores(target, others, found != 0) for target, others, found in _gather_parts(own, group)]
        parts[dist.get_rank(group)] = own
        return labelled_loss(combine_scores(parts), embeddings, labels, head_shard)


def sharded_kd(
    student_embeddings: torch.Tensor,
    student_shard: nn.Module,
    teacher_embeddings: torch.Tensor,
    teacher_shard: nn.Module,
    temperature: float,
    teacher_temperature: float | None = None,
    group: dist.ProcessGroup | None = None,
) -> torch.Tensor:
    """
    [`chunked_kd`] of the images of all processes, with a part of the classes on each.

    All processes call it, with equally many images.

    Args:
        student_embeddings (`torch.Tensor` of shape `(batch_size, student_size)`): Of the images of this process.
        student_shard (`nn.Module`): An `nn.Linear` or a [`CosineHead`] that has the classes of this process only.
        teacher_embeddings (`torch.Tensor` of shape `(batch_size, teacher_size)`): Of the same images.
        teacher_shard (`nn.Module`):
            The same classes of the teacher's classifier; the same module where the student is read by it.
        temperature (`float`): T, unitless.
        teacher_temperature (`float`, *optional*): Another T for the teacher's logits, see [`kd_loss`].
        group (`ProcessGroup`, *optional*): The processes; all where not given.

    Returns:
        `torch.Tensor` of shape `()`, the same in all processes. See the head of this module for its gradients.

    Raises:
        TypeError: A head is of another kind.
        ValueError: The shards have different numbers of classes, or embeddings another width than their head reads.
    """
    student, teacher = ClassMatrix.of(student_shard), ClassMatrix.of(teacher_shard)
    with torch.autocast(student_embeddings.device.type, enabled=False):
        own = softened_scores(
            # Gradients of several processes are added up, which a half precision would round.
            gather_rows(student_embeddings.to(student.dtype_with(student_embeddings)), group),
            student,
            gather_rows(teacher_embeddings.detach(), group),
            teacher,
            temperature,
            teacher_temperature or temperature,
        )
        parts = [SoftenedScores(*values) for values in _gather_parts(own, group)]
        parts[dist.get_rank(group)] = own
        return divergence(combine_softened(parts), temperature)


def gather_rows(rows: torch.Tensor, group: dist.ProcessGroup | None = None) -> torch.Tensor:
    """
    The rows of all processes, in the order of their ranks. Their gradients are summed up and come back to the process
    that a row is from, times the number of processes.

    Args:
        rows (`torch.Tensor` of shape `(batch_size, ...)`): Equally many in each process.
        group (`ProcessGroup`, *optional*): The processes; all where not given.

    Returns:
        `torch.Tensor` of shape `(processes * batch_size, ...)`.
    """
    return _GatherRows.apply(rows, group)


def _gather_parts(own: LabelScores | SoftenedScores, group: dist.ProcessGroup | None) -> list[torch.Tensor]:
    """The statistics of each process, without gradient: each differentiates the loss by its own alone."""
    packed = torch.stack([value.detach().to(own[0].dtype) for value in own]).unsqueeze(0)
    return list(gather_rows(packed, group))


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, group: dist.ProcessGroup | None) -> torch.Tensor:
        ctx.group = group
        gathered = rows.new_empty((dist.get_world_size(group) * len(rows), *rows.shape[1:]))
        dist.all_gather_into_tensor(gathered, rows.contiguous(), group=group)
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        processes = dist.get_world_size(ctx.group)
        own = grad.new_empty((len(grad) // processes, *grad.shape[1:]))
        dist.reduce_scatter_tensor(own, grad.contiguous(), group=ctx.group)
        return own.mul_(processes), None
