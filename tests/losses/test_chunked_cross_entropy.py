"""The cross-entropy in chunks against the one of logits that are held, in float64."""

from dataclasses import replace

import pytest
import torch
from dense_losses import HEADS, assert_close, assert_same_gradients, dense_cross_entropy, in_float64, make_head
from torch import nn

from headshare_hf.losses import chunked_cross_entropy, class_matrix, cross_entropy, streamed
from headshare_hf.losses.chunked_cross_entropy import label_scores
from headshare_hf.losses.class_matrix import ClassMatrix


WIDTH, CHUNK = 6, 4


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(class_matrix, "_CHUNK_OF_ONE_THREAD", CHUNK)
    monkeypatch.setattr(class_matrix, "_CHUNK_OF_MORE_THREADS", CHUNK)


@pytest.fixture(params=[0, 150, 10**6], ids=["nothing_kept", "some_kept", "all_kept"])
def kept(request, monkeypatch):
    """In bytes: two chunks of four classes for five images are 160."""
    monkeypatch.setattr(streamed, "KEPT_BYTES", request.param)
    return request.param


def _compare(head, embeddings, labels, tolerance=1e-5):
    exact, z64 = in_float64(head), embeddings.detach().double().requires_grad_()
    z = embeddings.clone().requires_grad_()
    found, expected = chunked_cross_entropy(z, labels, head), dense_cross_entropy(z64, labels, exact)
    found.backward()
    expected.backward()
    assert found.dtype == torch.float32
    assert_close(found.detach(), expected.detach(), tolerance)
    assert_close(z.grad, z64.grad, tolerance)
    assert_same_gradients(head, exact, tolerance)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("num_labels", [1, 3, 4, 5, 11, 12])
def test_value_and_gradients_are_those_of_the_dense_form(kind, num_labels, kept):
    labels = torch.tensor([0, num_labels - 1, num_labels // 2, -1, min(CHUNK, num_labels - 1)])
    _compare(make_head(kind, WIDTH, num_labels), torch.randn(5, WIDTH), labels)


@pytest.mark.parametrize("kind", HEADS)
def test_it_has_the_value_of_the_loss_of_this_package(kind):
    head, embeddings, labels = make_head(kind, WIDTH, 11), torch.randn(7, WIDTH), torch.tensor([3, 4, 7, 8, 10, 0, -1])
    other = make_head(kind, WIDTH, 11)
    logits = other(embeddings)
    if kind != "linear":
        logits = other.margin_logits(logits, labels, embeddings)
    torch.testing.assert_close(chunked_cross_entropy(embeddings, labels, head), cross_entropy(logits, labels))
    for (name, value), expected in zip(head.named_buffers(), other.buffers(), strict=True):
        # Running statistics are updated once.
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("batch", [1, 3])
def test_without_any_label_it_is_zero(batch):
    head, embeddings = make_head("adaface", WIDTH, 9), torch.randn(batch, WIDTH, requires_grad=True)
    loss = chunked_cross_entropy(embeddings, torch.full((batch,), -1), head)
    loss.backward()
    assert loss == 0 and not embeddings.grad.any() and not head.weight.grad.any()
    assert head.margin.norm_mean == 20


def test_one_image():
    for kind in ("linear", "arcface"):
        _compare(make_head(kind, WIDTH, 9), torch.randn(1, WIDTH), torch.tensor([8]))


@pytest.mark.parametrize("frozen", [["weight"], ["bias"], ["weight", "bias"]])
def test_frozen_parameters_get_no_gradient(frozen):
    head = make_head("linear", WIDTH, 9)
    for name in frozen:
        getattr(head, name).requires_grad_(False)
    _compare(head, torch.randn(4, WIDTH), torch.tensor([0, 4, 8, 3]))


def test_a_head_learns_from_embeddings_that_do_not():
    head, exact = (make_head("arcface", WIDTH, 9) for _ in range(2))
    embeddings, labels = torch.randn(4, WIDTH), torch.tensor([0, 4, 8, 3])
    chunked_cross_entropy(embeddings, labels, head).backward()
    dense_cross_entropy(embeddings, labels, exact).backward()
    assert_same_gradients(head, exact)


# AdaFace takes the length of the embedding as given.
@pytest.mark.parametrize("kind", ["linear", "cosine", "arcface", "cosface"])
def test_gradients_are_those_of_finite_differences(kind, kept):
    head, labels = make_head(kind, WIDTH, 9).double().eval(), torch.tensor([0, 4, 8, -1, 3])
    embeddings = torch.randn(5, WIDTH, dtype=torch.float64, requires_grad=True)
    parameters = list(head.parameters())
    assert torch.autograd.gradcheck(lambda z, *_: chunked_cross_entropy(z, labels, head), (embeddings, *parameters))


@pytest.mark.parametrize("kind, size", [("cosface", 100.0), ("linear", 1000.0)])
def test_extreme_logits_do_not_overflow(kind, size, kept):
    """Cosines of 1 and -1 at scale 64, and linear logits of thousands, where each label is hit or missed by far."""
    head = make_head(kind, WIDTH, 9, scale=64.0)
    embeddings = torch.cat([head.weight[:4], -head.weight[4:7]]).detach() * size
    _compare(head, embeddings + 0.01 * torch.randn(7, WIDTH), torch.tensor([0, 1, 2, 5, 4, 5, 6]))


def test_rows_of_length_zero():
    head = make_head("cosine", WIDTH, 9)
    head.weight.data[5] = 0
    embeddings, labels = torch.randn(4, WIDTH), torch.tensor([0, 5, 8, 3])
    chunked_cross_entropy(embeddings, labels, head).backward()
    assert head.weight.grad.isfinite().all()
    assert not head(embeddings)[:, 5].any()


@pytest.mark.parametrize("kind", ["linear", "arcface"])
def test_autocast_rounds_the_factors_of_products_alone(kind, kept, monkeypatch):
    """In the backward pass too, which is outside of it."""
    monkeypatch.setattr("headshare_hf.losses.products.has_bfloat16", lambda device: True)
    embeddings, labels = torch.randn(64, 32, requires_grad=True), torch.arange(64)
    results = []
    for enabled in (False, True):
        head, embeddings.grad = make_head(kind, 32, 200), None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = chunked_cross_entropy(embeddings, labels, head)
        loss.backward()
        results.append((loss.detach(), embeddings.grad, head.weight.grad))
    for plain, mixed, tolerance in zip(*results, (1e-3, 1e-2, 1e-2), strict=True):
        assert mixed.dtype == torch.float32 and not torch.equal(plain, mixed)
        assert_close(mixed, plain, tolerance)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_under_autocast_the_logit_of_the_label_is_not_rounded(kind):
    head, embeddings, labels = make_head(kind, WIDTH, 11), torch.randn(5, WIDTH), torch.tensor([0, 10, -1, 11, 4])
    columns = torch.tensor([0, 1, 3])
    for chosen, places in ((None, labels), (torch.tensor([2, 5, 9]), columns)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            classes = replace(ClassMatrix.of(head), chosen=chosen)
        scores = label_scores(embeddings[: len(places)], places, classes)
        logits = head(embeddings)[: len(places)]
        logits = logits if chosen is None else logits[:, chosen]
        expected = logits.gather(1, places.clamp(0, logits.shape[1] - 1).unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(scores.target, torch.where(scores.found, expected, 0))
        assert scores.found.tolist() == [0 <= place < len(classes) for place in places.tolist()]


def test_float64_is_computed_in_float64_under_autocast_too():
    head, embeddings, labels = make_head("arcface", WIDTH, 9).double(), torch.randn(4, WIDTH), torch.arange(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = chunked_cross_entropy(embeddings.double(), labels, head)
    torch.testing.assert_close(found, dense_cross_entropy(embeddings.double(), labels, head), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["linear", "arcface"])
def test_half_precision_is_widened(kind):
    """Weights in bfloat16 have a gradient in bfloat16 of a loss in float32."""
    head, labels = make_head(kind, WIDTH, 9).bfloat16(), torch.tensor([0, 4, 8, 3])
    embeddings = torch.randn(4, WIDTH).bfloat16().requires_grad_()
    wide, z = in_float64(head), embeddings.detach().double().requires_grad_()
    loss = chunked_cross_entropy(embeddings, labels, head)
    loss.backward()
    expected = dense_cross_entropy(z, labels, wide)
    expected.backward()
    assert loss.dtype == torch.float32 and head.weight.grad.dtype == torch.bfloat16
    assert_close(loss.detach(), expected.detach())
    assert_close(embeddings.grad, z.grad, 4e-3)
    assert_same_gradients(head, wide, 4e-3)


def test_the_loss_may_be_scaled_and_differentiated_twice_in_a_row():
    """Gradient accumulation, and a graph that is kept."""
    head, embeddings, labels = make_head("arcface", WIDTH, 9), torch.randn(4, WIDTH), torch.tensor([0, 4, 8, 3])
    loss = 0.25 * chunked_cross_entropy(embeddings, labels, head)
    loss.backward(retain_graph=True)
    once = head.weight.grad.clone()
    loss.backward()
    torch.testing.assert_close(head.weight.grad, 2 * once)


@pytest.mark.parametrize("wrong", [9, 100, -2, -100])
def test_a_label_that_is_no_class_is_refused(wrong):
    with pytest.raises(ValueError, match=f"`labels` hold {wrong}, which is no class"):
        chunked_cross_entropy(torch.randn(3, WIDTH), torch.tensor([0, wrong, -1]), make_head("linear", WIDTH, 9))


def test_embeddings_of_another_width_are_refused():
    with pytest.raises(ValueError, match="have width 7 and the head reads 6; put a projector"):
        chunked_cross_entropy(torch.randn(3, 7), torch.zeros(3, dtype=torch.long), make_head("linear", WIDTH, 9))


def test_another_kind_of_head_is_refused():
    with pytest.raises(TypeError, match="nn.Linear and CosineHead, not from Sequential; take `cross_entropy`"):
        chunked_cross_entropy(torch.randn(3, WIDTH), torch.zeros(3, dtype=torch.long), nn.Sequential())


def test_no_tensor_is_as_large_as_the_logits(monkeypatch):
    """Neither of the two passes computes more than a chunk at a time."""
    monkeypatch.setattr(streamed, "KEPT_BYTES", 0)
    seen = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            found = function(*arguments, **(options or {}))
            seen.extend(t.numel() for t in (found if isinstance(found, tuple) else (found,)) if torch.is_tensor(t))
            return found

    head, batch = make_head("linear", 2, 300), 40
    with Sizes():
        loss = chunked_cross_entropy(torch.randn(batch, 2, requires_grad=True), torch.arange(batch), head)
        loss.backward()
    assert len(seen) > 600 and max(seen) <= head.weight.numel() < 300 * batch


def test_chunks_follow_threads_and_images_and_never_exceed_the_classes(monkeypatch):
    monkeypatch.undo()
    large, small = ClassMatrix(torch.empty(50_000, 2)), ClassMatrix(torch.empty(30, 2))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert large.chunk_size(64) == 1024 and small.chunk_size(64) == 30
        torch.set_num_threads(2)
        assert [large.chunk_size(batch) for batch in (0, 64, 2048, 10**6)] == [4096, 4096, 2048, 256]
    finally:
        torch.set_num_threads(threads)
    elsewhere = ClassMatrix(torch.empty(10**6, 2, device="meta"))
    assert [elsewhere.chunk_size(batch) for batch in (1, 1024, 10**6)] == [65536, 16384, 256]
