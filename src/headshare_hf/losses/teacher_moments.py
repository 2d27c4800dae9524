"""What a teacher leaves of an image for the divergence through its own frozen head: one vector and one number."""

from dataclasses import dataclass

import torch
from torch import nn

from .class_matrix import ClassMatrix
from .streamed import softmax_means, with_gradient


@dataclass
class TeacherMoments:
    """
    All that the softened divergence needs of a teacher whose frozen head reads the student's embedding too.

    With the teacher's softened probabilities p over the classes, and the student's logits w·q + b / T, where w are
    the rows of the head and q its query (z / T for a linear head, s ẑ / T for a cosine head with rows of length 1),

        KL(p ‖ student) = Σ p log p − Σ p (w·q + b / T) + log Σ exp(w·q + b / T)
                        = Σ p (log p − b / T) − q · Σ p w + log Σ exp(w·q + b / T).

    The logits are linear in q, so that the teacher enters through `neg_entropy`, the first sum, and `mean_center`, the
    second one, alone. This is exact, up to rounding, in value and gradient as long as the student is read by the very
    head of which the mean was taken, at the same temperature and with weights that do not change; it does not matter
    what made p. It does not hold for a student's own head, whose rows are others.

    Attributes:
        mean_center (`torch.Tensor` of shape `(batch_size, embedding_size)`): Σ p w.
        neg_entropy (`torch.Tensor` of shape `(batch_size,)`):
            Σ p (log p − b / T), the negative entropy of p in nats where the head has no bias.
    """

    mean_center: torch.Tensor
    neg_entropy: torch.Tensor


@torch.no_grad()
def teacher_moments(
    teacher_embeddings: torch.Tensor,
    head: nn.Module,
    temperature: float,
    teacher_temperature: float | None = None,
) -> TeacherMoments:
    """
    Reads the class weights once and keeps what [`moments_kd`] needs, D + 1 numbers an image.

    Args:
        teacher_embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): What `head` reads.
        head (`nn.Module`): The teacher's classifier, an `nn.Linear` or a [`CosineHead`].
        temperature (`float`): T of the student, unitless.
        teacher_temperature (`float`, *optional*): Another T for the teacher's logits, see [`kd_loss`].

    Raises:
        TypeError: The head is of another kind.
        ValueError: The embeddings have another width than the head reads.
    """
    with torch.autocast(teacher_embeddings.device.type, enabled=False):
        # They are made once and used often: nothing is rounded.
        classes = ClassMatrix.of(head)
        queries, slopes = classes.queries(teacher_embeddings, teacher_temperature or temperature)
        means = softmax_means(queries, slopes, classes)
        # log p = w·q + b / T_teacher - log_sum, and both parts are linear in w and b.
        bias = (slopes.squeeze(1) - 1 / temperature) * means.bias
        return TeacherMoments(means.rows, (queries * means.rows).sum(dim=1) + bias - means.log_sum)


def moments_kd(
    student_embeddings: torch.Tensor, head: nn.Module, moments: TeacherMoments, temperature: float
) -> torch.Tensor:
    """
    [`chunked_kd`] of a student that is read by the teacher's frozen head, from the moments of the teacher.

    One pass over the classes gives loss and gradient, with half of the products that the teacher's embedding needs; under
    autocast, with factors that are rounded to bfloat16. Loss and gradient are those of [`TeacherMoments`]; the weights of the head get no gradient.

    Args:
        student_embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): What `head` reads.
        head (`nn.Module`): The classifier of which the moments were taken.
        moments ([`TeacherMoments`]): Of the same images, taken with the same `temperature`.
        temperature (`float`): T, unitless.

    Returns:
        `torch.Tensor` of shape `()`.

    Raises:
        TypeError: The head is of another kind.
        ValueError: The head learns, the moments are of other images or another head, or the embeddings have another
            width than the head reads.
    """
    _check(student_embeddings, head, moments)
    classes = ClassMatrix.of(head)
    with torch.autocast(student_embeddings.device.type, enabled=False):
        queries, slopes = classes.queries(student_embeddings, temperature)
        with torch.no_grad():
            means, center = softmax_means(queries, slopes, classes), moments.mean_center.to(queries.dtype)
            values = moments.neg_entropy.to(queries.dtype) - (queries * center).sum(dim=1) + means.log_sum
            gradients = means.rows - center
        return with_gradient(values, queries, gradients).mean() * temperature**2


def _check(student_embeddings: torch.Tensor, head: nn.Module, moments: TeacherMoments) -> None:
    if any(parameter.requires_grad for parameter in head.parameters()):
        raise ValueError("`head` learns, so that moments taken earlier are not those of its weights; freeze it")
    if moments.mean_center.shape != student_embeddings.shape:
        raise ValueError(
            f"`moments.mean_center` has shape {tuple(moments.mean_center.shape)} and `student_embeddings` "
            f"{tuple(student_embeddings.shape)}; take the moments of the same images with the same head"
        )
