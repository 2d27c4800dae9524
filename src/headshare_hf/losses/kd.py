"""The softened Kullback-Leibler divergence of knowledge distillation."""

import torch
from torch.nn import functional as F


def kd_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    temperature: float,
    teacher_temperature: float | None = None,
) -> torch.Tensor:
    """
    T² · KL(softmax(teacher / T) ‖ softmax(student / T)), averaged over the batch (Hinton et al., arXiv 1503.02531).

    H of equation (1) of arXiv 2201.06945: with the student's own logits its first term, with the logits of the
    teacher's frozen head on the student's embedding its second. The factor T² keeps the size of the gradient
    independent of the temperature. The mean is over images, never over classes; systems which divide by the number
    of classes too quote weights that are larger by that factor.

    Args:
        student_logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Logits that learn.
        teacher_logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Logits that teach; no gradient goes there.
        temperature (`float`): T, unitless.
        teacher_temperature (`float`, *optional*):
            Another T for the teacher's logits, where they have another scale than the student's. The factor stays that
            of the student.

    Returns:
        `torch.Tensor` of shape `()`.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.softmax(teacher_logits.detach().float() / (teacher_temperature or temperature), dim=1)
    return F.kl_div(student, teacher, reduction="batchmean") * temperature**2
