"""What Liger-Kernel is called with, by a stand-in that has its signature: its kernels need a GPU."""

import sys
from types import ModuleType

import pytest
import torch
from dense_losses import make_head
from torch import nn
from torch.nn import functional as F

from headshare_hf.losses import chunked_cross_entropy, cross_entropy
from headshare_hf.losses.liger import LigerScores, liger_cross_entropy


class StandIn(nn.Module):
    """LigerFusedLinearCrossEntropyLoss of version 0.8.5, as far as the arguments that are given here."""

    calls = 0

    def __init__(self, ce_weight=None, ignore_index=-100, lse_square_scale=0.0, label_smoothing=0.0, reduction="mean",
                 softcap=None, return_z_loss=False, accum_dtype=None):  # fmt: skip
        super().__init__()
        self.options = {"ignore_index": ignore_index, "reduction": reduction}
        assert accum_dtype == torch.float32

    def forward(self, lin_weight, _input, target, bias=None):
        StandIn.calls += 1
        return F.cross_entropy(F.linear(_input, lin_weight, bias), target, **self.options)


@pytest.fixture
def liger(monkeypatch):
    for name in ("liger_kernel", "liger_kernel.transformers", "liger_kernel.transformers.fused_linear_cross_entropy"):
        module = ModuleType(name)
        module.LigerFusedLinearCrossEntropyLoss = StandIn
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(StandIn, "calls", 0)


def test_the_loss_is_that_of_this_package(liger):
    head = make_head("linear", 6, 11)
    for labels in (torch.tensor([0, 10, -1, 4]), torch.full((4,), -1)):
        embeddings = torch.randn(4, 6)
        found = liger_cross_entropy(embeddings, labels, head)
        torch.testing.assert_close(found, cross_entropy(head(embeddings), labels))


def test_it_takes_the_cross_entropy_of_linear_heads_that_learn(liger):
    labels, embeddings = torch.arange(4), torch.randn(4, 6)
    for kind, frozen, calls in (("linear", False, 1), ("linear", True, 0), ("arcface", False, 0)):
        StandIn.calls = 0
        head = make_head(kind, 6, 11).requires_grad_(not frozen)
        scores = LigerScores(head, embeddings)
        torch.testing.assert_close(scores.cross_entropy(labels), chunked_cross_entropy(embeddings, labels, head))
        scores.divergence(LigerScores(head, embeddings), 4.0, 4.0)
        assert StandIn.calls == calls


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    with pytest.raises(ImportError, match="`large_head_kernel` 'liger' needs liger-kernel .*pip install liger-kernel"):
        liger_cross_entropy(torch.randn(4, 6), torch.arange(4), make_head("linear", 6, 11))
