"""Scores of teachers of which moments are left."""

import pytest
import torch
from torch import nn

from headshare_hf.losses import ChunkedScores, DenseScores, MomentScores, ShardedScores, scores, teacher_moments
from headshare_hf.models import CosineHead


TEMPERATURE = 3.0


def _head(kind: type, num_labels: int = 40) -> nn.Module:
    torch.manual_seed(0)
    head = nn.Linear(8, num_labels) if kind is nn.Linear else CosineHead(8, num_labels, scale=16.0)
    return head.requires_grad_(False)


@pytest.mark.parametrize("kind", [nn.Linear, CosineHead])
def test_moments_teach_what_the_embedding_does(kind):
    head, teacher = _head(kind), torch.randn(6, 8)
    students = [torch.randn(6, 8, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
    left = MomentScores(head, teacher_moments(teacher, head, TEMPERATURE))
    found = ChunkedScores(head, students[0]).divergence(left, TEMPERATURE, TEMPERATURE)
    expected = DenseScores(head(students[1]), head).divergence(
        DenseScores(head(teacher), head), TEMPERATURE, TEMPERATURE
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    found.backward(), expected.backward()
    torch.testing.assert_close(students[0].grad, students[1].grad, rtol=1e-4, atol=1e-6)


def test_moments_teach_through_their_own_head_only():
    head = _head(nn.Linear)
    left = MomentScores(head, teacher_moments(torch.randn(6, 8), head, TEMPERATURE))
    with pytest.raises(TypeError, match="through its own Linear only, and another one reads the student"):
        ChunkedScores(nn.Linear(8, 40), torch.randn(6, 8)).divergence(left, TEMPERATURE, TEMPERATURE)
    with pytest.raises(TypeError, match="logits cannot be compared with MomentScores"):
        DenseScores(torch.randn(6, 40)).divergence(left, TEMPERATURE, TEMPERATURE)
    with pytest.raises(TypeError, match="say nothing of single classes; store its embeddings"):
        left.cross_entropy(torch.zeros(6, dtype=torch.int64))
    with pytest.raises(TypeError, match="cannot be taught themselves; store its embeddings"):
        left.divergence(left, TEMPERATURE, TEMPERATURE)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_twin_is_what_is_compared_with_the_teacher(sharded, monkeypatch):
    """The cross-entropy stays with the head, whose margin may be another one."""
    head, twin = _head(nn.Linear), _head(nn.Linear)
    asked = []
    for name in ("sharded_kd", "chunked_kd", "sharded_cross_entropy", "chunked_cross_entropy"):
        monkeypatch.setattr(scores, name, lambda *args, **_: asked.append(args))
    kind, place = (ShardedScores, [0]) if sharded else (ChunkedScores, [])
    student = kind(head, *place, torch.randn(6, 8), twin=twin)
    student.divergence(kind(twin, *place, torch.randn(6, 8)), TEMPERATURE, TEMPERATURE)
    student.cross_entropy(torch.zeros(6, dtype=torch.int64))
    assert asked[0][1] is twin and asked[0][3] is twin and asked[1][2] is head
