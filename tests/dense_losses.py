"""The losses over all classes in float64, from logits that are held, and how close others come to them."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from headshare_hf.models import CosineHead
from headshare_hf.models.heads import create_head


HEADS = ("linear", "cosine", "arcface", "cosface", "adaface")


def make_head(kind: str, width: int, num_labels: int, scale: float = 16.0, seed: int = 0) -> nn.Module:
    """A head whose classes are easy to tell apart, and whose rows have different lengths."""
    head = create_head(kind, width, num_labels, scale)
    # Not the numbers that embeddings are drawn from.
    generator = torch.Generator().manual_seed(100 + seed)
    with torch.no_grad():
        head.weight.copy_(torch.randn(num_labels, width, generator=generator))
        head.weight.mul_(0.5 + torch.rand(num_labels, 1, generator=generator))
        if kind == "linear":
            head.bias.copy_(torch.randn(num_labels, generator=generator))
    return head


def in_float64(head: nn.Module) -> nn.Module:
    """A copy."""
    return copy.deepcopy(head).double()


def dense_cross_entropy(embeddings: torch.Tensor, labels: torch.Tensor, head: nn.Module) -> torch.Tensor:
    """Mean over the labelled images; 0 if there are none."""
    logits = head(embeddings)
    if isinstance(head, CosineHead):
        logits = head.margin_logits(logits, labels, embeddings)
    return F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / max(1, int((labels >= 0).sum()))


def dense_kd(student_logits, teacher_logits, temperature, teacher_temperature=None) -> torch.Tensor:
    """T² KL(teacher ‖ student), the mean over the images."""
    student = (student_logits / temperature).log_softmax(1)
    teacher = (teacher_logits.detach() / (teacher_temperature or temperature)).log_softmax(1)
    return (teacher.exp() * (teacher - student)).sum(1).mean() * temperature**2


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """`found` differs from `expected` by at most `tolerance`, relative to the length of the latter."""
    assert found.shape == expected.shape and found.isfinite().all()
    difference = (found.double() - expected.double()).norm()
    assert difference <= tolerance * expected.double().norm(), float(difference / expected.double().norm())


def assert_same_gradients(module: nn.Module, expected: nn.Module, tolerance: float = 1e-5) -> None:
    """The parameters of both have gradients that agree, or none where those of `expected` have none."""
    for (name, parameter), other in zip(module.named_parameters(), expected.parameters(), strict=True):
        assert (parameter.grad is None) == (other.grad is None), name
        if other.grad is not None:
            assert_close(parameter.grad, other.grad, tolerance)
