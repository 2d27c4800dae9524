"""The softened Kullback-Leibler divergence over so many classes that the logits would not fit into the cache."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .class_matrix import Chunk, ClassMatrix
from .streamed import LogitGradients, RunningSoftmax, Shares, softmax_means, with_gradient


class SoftenedScores(NamedTuple):
    """
    What the divergence needs of all logits, or of those of one part of the classes, divided by their temperatures.

    Attributes:
        student (`torch.Tensor` of shape `(batch_size,)`): log Σ exp(student).
        teacher (`torch.Tensor` of shape `(batch_size,)`): log Σ exp(teacher).
        gap (`torch.Tensor` of shape `(batch_size,)`):
            Σ p (teacher − student), where p is the teacher's softmax over the classes of this part.
    """

    student: torch.Tensor
    teacher: torch.Tensor
    gap: torch.Tensor


def chunked_kd(
    student_embeddings: torch.Tensor,
    student_head: nn.Module,
    teacher_embeddings: torch.Tensor,
    teacher_head: nn.Module,
    temperature: float,
    teacher_temperature: float | None = None,
) -> torch.Tensor:
    """
    [`kd_loss`] of the logits of both heads, without any margin and without those logits being held.

    Where the student's embedding is read by the teacher's own frozen head, one pass over the classes gives the loss
    and its gradient, Σ (p_student − p_teacher) w · T for logits w · z / T. A head that learns, or that is another one,
    is gone through twice; give the teacher's in place of a frozen copy. Beside the results this takes the memory of a few chunks of logits; class weights that learn
    get one gradient buffer. Everything is computed in float32, or in float64 where an input is; under autocast the
    factors of products are rounded to bfloat16 and summed in float32. There is no second derivative.

    Args:
        student_embeddings (`torch.Tensor` of shape `(batch_size, student_size)`): What `student_head` reads.
        student_head (`nn.Module`):
            An `nn.Linear` or a [`CosineHead`]; its parameters get a gradient where they want one.
        teacher_embeddings (`torch.Tensor` of shape `(batch_size, teacher_size)`):
            What `teacher_head` reads; no gradient goes there.
        teacher_head (`nn.Module`): An `nn.Linear` or a [`CosineHead`]; no gradient goes there.
        temperature (`float`): T, unitless.
        teacher_temperature (`float`, *optional*): Another T for the teacher's logits, see [`kd_loss`].

    Returns:
        `torch.Tensor` of shape `()`.

    Raises:
        TypeError: A head is of another kind.
        ValueError: The heads have different numbers of classes, or embeddings another width than their head reads.
    """
    student, teacher = ClassMatrix.of(student_head), ClassMatrix.of(teacher_head)
    with torch.autocast(student_embeddings.device.type, enabled=False):
        scores = softened_scores(
            student_embeddings,
            student,
            teacher_embeddings,
            teacher,
            temperature,
            teacher_temperature or temperature,
        )
        return divergence(scores, temperature)


def softened_scores(
    student_embeddings: torch.Tensor,
    student: ClassMatrix,
    teacher_embeddings: torch.Tensor,
    teacher: ClassMatrix,
    temperature: float,
    teacher_temperature: float,
) -> SoftenedScores:
    """
    The scores of some or all classes; those of several parts go through [`combine_softened`].

    Args:
        student_embeddings (`torch.Tensor` of shape `(batch_size, student_size)`): What the student's head reads.
        student ([`ClassMatrix`]): The student's classifier, or the part of it that this process holds.
        teacher_embeddings (`torch.Tensor` of shape `(batch_size, teacher_size)`): What the teacher's head reads.
        teacher ([`ClassMatrix`]): The same classes of the teacher's classifier.
        temperature (`float`): Of the student, unitless.
        teacher_temperature (`float`): Of the teacher, unitless.

    Raises:
        ValueError: The two have different numbers of classes.
    """
    if len(student) != len(teacher):
        raise ValueError(
            f"the student's head has {len(student)} classes and the teacher's {len(teacher)}; "
            "both must be of the same classes in the same order"
        )
    dtype = torch.promote_types(student.dtype_with(student_embeddings), teacher.dtype_with(teacher_embeddings))
    queries, slopes = student.queries(student_embeddings.to(dtype), temperature)
    with torch.no_grad():
        fixed, fixed_slopes = teacher.queries(teacher_embeddings.to(dtype), teacher_temperature)
    if _is_one_frozen_head(student, teacher):
        return _scores_of_one_head(queries, slopes, fixed, fixed_slopes, student)
    return _scores_of_two_heads(queries, slopes, fixed, fixed_slopes, student, teacher)


def combine_softened(parts: Sequence[SoftenedScores]) -> SoftenedScores:
    """The scores of all classes from those of parts that share no class, in any order and grouping."""
    students, teachers, gaps = (torch.stack(values) for values in zip(*parts, strict=True))
    teacher = teachers.logsumexp(dim=0)
    return SoftenedScores(students.logsumexp(dim=0), teacher, ((teachers - teacher).exp() * gaps).sum(dim=0))


def divergence(scores: SoftenedScores, temperature: float) -> torch.Tensor:
    """T² times the mean divergence of the images, from the scores of all classes."""
    return (scores.gap - scores.teacher + scores.student).mean() * temperature**2


def _is_one_frozen_head(student: ClassMatrix, teacher: ClassMatrix) -> bool:
    learns = student.weight.requires_grad or (student.bias is not None and student.bias.requires_grad)
    same = student.weight is teacher.weight and student.bias is teacher.bias and student.scale == teacher.scale
    return same and not learns


def _scores_of_one_head(
    queries: torch.Tensor,
    slopes: torch.Tensor,
    fixed: torch.Tensor,
    fixed_slopes: torch.Tensor,
    classes: ClassMatrix,
) -> SoftenedScores:
    # Side by side, so that the class rows are read once for both.
    both = softmax_means(torch.cat([queries.detach(), fixed]), torch.cat([slopes, fixed_slopes]), classes)
    count = len(queries)
    # The logits are linear in the query: their mean is the query's product with the mean of the class rows.
    gap = ((fixed - queries) * both.rows[count:]).sum(dim=1)
    gap = gap + (fixed_slopes - slopes).squeeze(1) * both.bias[count:]
    student = with_gradient(both.log_sum[:count], queries, both.rows[:count])
    return SoftenedScores(student, both.log_sum[count:], gap)


def _scores_of_two_heads(
    queries: torch.Tensor,
    slopes: torch.Tensor,
    fixed: torch.Tensor,
    fixed_slopes: torch.Tensor,
    student: ClassMatrix,
    teacher: ClassMatrix,
) -> SoftenedScores:
    return SoftenedScores(
        *_SoftenedScores.apply(queries, student.weight, student.bias, slopes, fixed, fixed_slopes, student, teacher)
    )


class _SoftenedScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        slopes: torch.Tensor,
        fixed: torch.Tensor,
        fixed_slopes: torch.Tensor,
        student: ClassMatrix,
        teacher: ClassMatrix,
    ) -> tuple[torch.Tensor, ...]:
        keep = 0.5 * any(ctx.needs_input_grad)
        softmax = RunningSoftmax(queries, slopes, student, keep)
        fixed_softmax, gap = RunningSoftmax(fixed, fixed_slopes, teacher, keep), torch.zeros_like(slopes)
        for chunk, fixed_chunk in _both(student, teacher, queries):
            logits, fixed_logits = softmax.logits(chunk), fixed_softmax.logits(fixed_chunk)
            differences = fixed_logits - logits
            gap.mul_(fixed_softmax.add(fixed_logits)).add_(differences.mul_(fixed_logits).sum(dim=1, keepdim=True))
            softmax.add(logits)
        log_sum, fixed_log_sum = softmax.log_sum(), fixed_softmax.log_sum()
        ctx.save_for_backward(
            *(queries, weight, bias, slopes, fixed, fixed_slopes, log_sum, fixed_log_sum),
            *softmax.kept,
            *fixed_softmax.kept,
        )
        ctx.student, ctx.teacher = student, teacher
        result = log_sum.squeeze(1), fixed_log_sum.squeeze(1), fixed_softmax.mean(gap).squeeze(1)
        ctx.mark_non_differentiable(result[1])
        return result

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_student: torch.Tensor, _: torch.Tensor, grad_gap: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        queries, weight, bias, slopes, fixed, fixed_slopes, log_sum, fixed_log_sum, *kept = ctx.saved_tensors
        student, half = replace(ctx.student, weight=weight, bias=bias), len(kept) // 2
        gradients = LogitGradients(queries, slopes, student, ctx.needs_input_grad[:3])
        shares = Shares(queries, slopes, student, log_sum, kept[:half])
        fixed_shares = Shares(fixed, fixed_slopes, ctx.teacher, fixed_log_sum, kept[half:])
        with torch.autocast(queries.device.type, enabled=False):
            for chunk, fixed_chunk in _both(student, ctx.teacher, queries):
                gradient = shares.next(chunk).mul_(grad_student.unsqueeze(1))
                gradient.addcmul_(fixed_shares.next(fixed_chunk), grad_gap.unsqueeze(1), value=-1)
                gradients.add(chunk, gradient)
        return gradients.queries, gradients.weight, gradients.bias, None, None, None, None, None


def _both(student: ClassMatrix, teacher: ClassMatrix, queries: torch.Tensor) -> Iterator[tuple[Chunk, Chunk]]:
    sizes = len(queries), queries.dtype
    return zip(student.chunks(*sizes), teacher.chunks(*sizes), strict=True)
