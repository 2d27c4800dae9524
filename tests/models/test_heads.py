"""The classifier of class centers: values, gradients, and how little it keeps."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from headshare_hf.models import CosineHead
from headshare_hf.models.heads import create_head


@pytest.fixture
def head():
    head = CosineHead(8, 50, 16.0)
    with torch.no_grad():
        head.weight.mul_(torch.logspace(-3, 3, 50).unsqueeze(1))
    return head


def test_logits_and_gradients_are_those_of_vectors_of_length_one(head):
    embeddings, direction = torch.randn(6, 8, requires_grad=True), torch.randn(6, 50)
    plain = 16 * F.normalize(embeddings) @ F.normalize(head.weight).T
    torch.testing.assert_close(head(embeddings), plain)
    expected = torch.autograd.grad((plain * direction).sum(), (embeddings, head.weight))
    found = torch.autograd.grad((head(embeddings) * direction).sum(), (embeddings, head.weight))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_vectors_of_length_zero_give_logits_of_zero(head):
    with torch.no_grad():
        head.weight[3] = 0
    logits = head(torch.cat([torch.zeros(1, 8), torch.ones(1, 8)]))
    assert (logits[0] == 0).all() and logits[1, 3] == 0
    logits.sum().backward()
    assert torch.isfinite(head.weight.grad).all()


@pytest.mark.parametrize("trained", [True, False])
def test_no_copy_of_the_centers_is_made(head, trained):
    head.requires_grad_(trained)
    kept = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        head(torch.randn(2, 8, requires_grad=True))
    matrices = [tensor for tensor in kept if tensor.numel() == head.weight.numel()]
    assert matrices and {tensor.data_ptr() for tensor in matrices} == {head.weight.data_ptr()}


def test_half_precision_centers_are_read_in_float32(head):
    embeddings = torch.randn(3, 8)
    expected = head(embeddings)
    half = head.to(torch.bfloat16)(embeddings.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, rtol=0, atol=0.2)


@pytest.mark.parametrize("kind", ["cosine", "arcface", "cosface", "adaface"])
def test_shapes_are_found_without_memory(kind):
    with torch.device("meta"):
        head, embeddings, labels = create_head(kind, 8, 50, 16.0), torch.ones(3, 8), torch.zeros(3, dtype=torch.int64)
    logits = head(embeddings)
    assert logits.is_meta and logits.shape == (3, 50)
    assert head.margin_logits(logits, labels, embeddings).shape == (3, 50)
