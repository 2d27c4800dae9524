"""Parts of the classes, as processes hold them, and their statistics combined; the same on an accelerator."""

from dataclasses import replace

import pytest
import torch
from dense_losses import assert_close, dense_cross_entropy, dense_kd, in_float64, make_head

from headshare_hf.losses import chunked_cross_entropy, chunked_kd, class_matrix
from headshare_hf.losses.chunked_cross_entropy import combine_scores, label_scores, labelled_loss
from headshare_hf.losses.chunked_kd import combine_softened, divergence, softened_scores
from headshare_hf.losses.class_matrix import ClassMatrix


WIDTH, NUM_LABELS = 6, 11
LABELS = torch.tensor([0, 3, 4, 10, -1])
# Of one class, of several chunks, and in an order that is not that of the classes.
BOUNDS = [(4, 5), (0, 4), (5, 11)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(class_matrix, "_CHUNK_OF_ONE_THREAD", 4)
    monkeypatch.setattr(class_matrix, "_CHUNK_OF_MORE_THREADS", 4)


def _parts(head):
    classes = ClassMatrix.of(head)
    bias = classes.bias
    return [
        (start, replace(classes, weight=classes.weight[start:stop], bias=None if bias is None else bias[start:stop]))
        for start, stop in BOUNDS
    ]


def _grouped(combine, parts):
    """All at once, and two of them before the third."""
    first, second, third = parts
    return combine(parts), combine([first, combine([second, third])])


@pytest.mark.parametrize("kind", ["linear", "arcface"])
def test_cross_entropies_of_parts_combine_in_any_grouping(kind):
    embeddings, head = torch.randn(5, WIDTH, requires_grad=True), make_head(kind, WIDTH, NUM_LABELS)
    exact, z64 = in_float64(head), embeddings.detach().double().requires_grad_()
    dense_cross_entropy(z64, LABELS, exact).backward()
    parts = [label_scores(embeddings, LABELS - start, part) for start, part in _parts(head)]
    assert [int(part.found.sum()) for part in parts] == [1, 2, 1]
    for scores in _grouped(combine_scores, parts):
        embeddings.grad = head.weight.grad = None
        labelled_loss(scores, embeddings, LABELS, head).backward(retain_graph=True)
        assert_close(embeddings.grad, z64.grad)
        assert_close(head.weight.grad, exact.weight.grad)


@pytest.mark.parametrize("kind", ["linear", "arcface"])
@pytest.mark.parametrize("frozen", [False, True])
def test_divergences_of_parts_combine_in_any_grouping(kind, frozen):
    embeddings, teacher = torch.randn(5, WIDTH, requires_grad=True), torch.randn(5, WIDTH)
    head = make_head(kind, WIDTH, NUM_LABELS).requires_grad_(not frozen)
    teacher_head = head if frozen else make_head("linear", WIDTH, NUM_LABELS, seed=1).requires_grad_(False)
    exact, z64 = in_float64(head), embeddings.detach().double().requires_grad_()
    dense_kd(exact(z64), in_float64(teacher_head)(teacher.double()), 4.0, 2.0).backward()
    students = _parts(head)
    pairs = zip(students, students if frozen else _parts(teacher_head), strict=True)
    parts = [softened_scores(embeddings, part, teacher, other, 4.0, 2.0) for (_, part), (_, other) in pairs]
    for scores in _grouped(combine_softened, parts):
        embeddings.grad = head.weight.grad = None
        divergence(scores, 4.0).backward(retain_graph=True)
        assert_close(embeddings.grad, z64.grad)
        if not frozen:
            assert_close(head.weight.grad, exact.weight.grad)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_part_without_classes_changes_nothing(frozen):
    """A process has none where there are few classes for many processes."""
    embeddings, teacher = torch.randn(5, WIDTH, requires_grad=True), torch.randn(5, WIDTH)
    head = make_head("linear", WIDTH, NUM_LABELS).requires_grad_(not frozen)
    whole = ClassMatrix.of(head)
    empty = replace(whole, weight=whole.weight[:0], bias=whole.bias[:0])
    found = []
    for parts in ([whole], [whole, empty], [empty, whole]):
        embeddings.grad = head.weight.grad = None
        scores = [softened_scores(embeddings, part, teacher, part, 4.0, 2.0) for part in parts]
        loss = divergence(combine_softened(scores), 4.0)
        loss.backward()
        found.append([loss.detach(), embeddings.grad, *([] if frozen else [head.weight.grad])])
    for others in found[1:]:
        for expected, value in zip(found[0], others, strict=True):
            assert_close(value, expected)


def test_one_label_and_nothing_else_in_a_part():
    """Its part has no other class, so that the sum over the others is empty there."""
    head, embeddings = make_head("linear", WIDTH, NUM_LABELS), torch.randn(1, WIDTH)
    (start, part), *_ = _parts(head)
    scores = label_scores(embeddings, torch.tensor([4 - start]), part)
    assert scores.others < -1e29
    torch.testing.assert_close(scores.target, head(embeddings)[:, 4])
    scores.target.sum().backward()
    torch.testing.assert_close(head.weight.grad[4], embeddings[0])
    assert head.weight.grad.isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("kind", ["linear", "arcface"])
def test_an_accelerator_has_the_same_numbers(kind):
    device = torch.accelerator.current_accelerator()
    head, embeddings = make_head(kind, WIDTH, NUM_LABELS), torch.randn(5, WIDTH)
    teacher_head = make_head("linear", WIDTH, NUM_LABELS, seed=1).requires_grad_(False)
    results = []
    for place in ("cpu", device):
        z = embeddings.to(place, copy=True).requires_grad_()
        own, other = in_float64(head).float().to(place), teacher_head.to(place)
        loss = chunked_cross_entropy(z, LABELS.to(place), own) + chunked_kd(z, other, z, other, 4.0)
        (loss + chunked_kd(z, own, embeddings.to(place), other, 4.0)).backward()
        results.append([loss.detach().cpu(), z.grad.cpu(), own.weight.grad.cpu()])
    for expected, found in zip(*results, strict=True):
        assert_close(found, expected)
    wrong = torch.full((5,), NUM_LABELS, device=device)
    assert chunked_cross_entropy(embeddings.to(device), wrong, head.to(device)).isnan()
