"""The distance between the embeddings of student and teacher (KDE)."""

import torch
from torch.nn import functional as F


def embedding_loss(student_embeddings: torch.Tensor, teacher_embeddings: torch.Tensor) -> torch.Tensor:
    """
    Squared distance of the unit embeddings, ‖ẑ_s − ẑ_t‖² = 2 (1 − cos), averaged over the batch.

    D of arXiv 2201.06945 ("L2E" in its face table). The authors' code sums over the batch instead, so that its weight
    depends on the batch size: their β at batch size B is `embedding_weight` = β · B here.

    Args:
        student_embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): Embeddings that learn.
        teacher_embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): Embeddings that teach.

    Returns:
        `torch.Tensor` of shape `()`, in [0, 4].
    """
    student = F.normalize(student_embeddings.float())
    teacher = F.normalize(teacher_embeddings.detach().float())
    return (student - teacher).square().sum(dim=1).mean()
