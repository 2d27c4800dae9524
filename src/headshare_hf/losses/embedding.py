"""The distance between the embeddings of student and teacher (KDE, and L2E in face recognition)."""

import torch
from torch.nn import functional as F


DISTANCES = ("cosine", "l2")


def embedding_loss(
    student_embeddings: torch.Tensor, teacher_embeddings: torch.Tensor, distance: str = "cosine"
) -> torch.Tensor:
    """
    Squared distance of the unit embeddings, ‖ẑ_s − ẑ_t‖² = 2 (1 − cos), averaged over the batch; or of the embeddings
    as they are.

    D of arXiv 2201.06945 ("L2E" in its face table). The authors' code sums over the batch instead, so that its weight
    depends on the batch size: their β at batch size B is `embedding_weight` = β · B here.

    Args:
        student_embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): Embeddings that learn.
        teacher_embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): Embeddings that teach.
        distance (`str`, *optional*, defaults to `"cosine"`): `"cosine"` compares directions, `"l2"` lengths too.

    Returns:
        `torch.Tensor` of shape `()`, in [0, 4] for `"cosine"`.
    """
    student, teacher = student_embeddings.float(), teacher_embeddings.detach().float()
    if distance == "cosine":
        student, teacher = F.normalize(student), F.normalize(teacher)
    return (student - teacher).square().sum(dim=1).mean()
