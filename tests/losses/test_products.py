"""Products under autocast, here and, with tensors that have a shape and no content, as they would be on a GPU."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from headshare_hf.losses.class_matrix import ClassMatrix
from headshare_hf.losses.products import add_product, product, rounded_factors
from headshare_hf.losses.sampled_classes import sample_classes


CHUNKED_CROSS_ENTROPY = sys.modules["headshare_hf.losses.chunked_cross_entropy"]
CHUNKED_KD = sys.modules["headshare_hf.losses.chunked_kd"]


def test_factors_are_rounded_under_autocast_only(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert rounded_factors(cpu) is None
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            assert rounded_factors(cpu) == torch.bfloat16 and rounded_factors(cuda) is None
            assert rounded_factors(torch.device("mps")) is None
    for native in (True, False):
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda native=native: native)
        assert rounded_factors(cuda) == rounded_factors(cpu) == (torch.bfloat16 if native else None)


def test_a_product_of_rounded_factors():
    left, right = torch.randn(5, 40), torch.randn(40, 3)
    out, sums = torch.empty(5, 3), torch.ones(5, 3)
    assert torch.equal(product(left, right, out), left @ right)
    rounded = right.bfloat16()
    assert product(left, rounded, out) is out and out.dtype == torch.float32
    expected = left.bfloat16().double() @ rounded.double()
    torch.testing.assert_close(out.double(), expected, rtol=2**-8, atol=1e-2)
    add_product(left, rounded, sums)
    torch.testing.assert_close(sums, 1 + out)
    add_product(left, right, sums)
    torch.testing.assert_close(sums, 1 + out + left @ right)


class _Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def _context(*needed):
    """What a function with a backward pass is given; the engine that calls it wants a GPU."""
    context = SimpleNamespace(needs_input_grad=needed, saved_tensors=(), mark_non_differentiable=lambda *_: None)
    context.save_for_backward = lambda *tensors: setattr(context, "saved_tensors", tensors)
    return context


@pytest.mark.parametrize("rate", [1.0, 0.2])
@pytest.mark.parametrize("scale", [None, 16.0])
def test_on_a_gpu_results_are_not_rounded_and_nothing_waits_for_them(scale, rate):
    """Reading a number on the host, or a size that depends on content, is an error of such tensors."""
    with FakeTensorMode(), _Operations() as seen, torch.no_grad():
        queries, slopes = torch.randn(4, 8, device="cuda"), torch.ones(4, 1, device="cuda")
        columns, weight = torch.zeros(4, dtype=torch.int64, device="cuda"), torch.randn(300, 8, device="cuda")
        classes = ClassMatrix(weight, scale=scale, rounded=torch.bfloat16)
        few, columns = sample_classes(classes, columns, rate, seed=0, step=0)
        context = _context(True, True, False)
        inputs = queries, weight, None, slopes, columns, few
        scores = CHUNKED_CROSS_ENTROPY._LabelScores.forward(context, *inputs)
        gradients = CHUNKED_CROSS_ENTROPY._LabelScores.backward(context, *scores)
        context = _context(True, True, False)
        inputs = queries, weight, None, slopes, queries, slopes, classes, classes
        divergence = CHUNKED_KD._SoftenedScores.forward(context, *inputs)
        gradients += CHUNKED_KD._SoftenedScores.backward(context, *divergence)
        divergence += tuple(CHUNKED_KD._scores_of_one_head(queries, slopes, queries, slopes, classes))
    found = [tensor for tensor in (*scores, *divergence, *gradients) if tensor is not None]
    assert {tensor.device.type for tensor in found} == {"cuda"}
    assert {tensor.dtype for tensor in found} == {torch.float32}
    products = [name for name in seen.names if "mm" in name]
    assert len(products) > 8 and set(products) == {"aten.mm.dtype_out"}
