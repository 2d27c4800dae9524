"""The divergence in chunks, and from the moments of the teacher, against the one of logits in float64."""

import pytest
import torch
from dense_losses import assert_close, assert_same_gradients, dense_kd, in_float64, make_head
from torch import nn

from headshare_hf.losses import (
    TeacherMoments,
    chunked_kd,
    class_matrix,
    kd_loss,
    moments_kd,
    streamed,
    teacher_moments,
)


WIDTH, OWN_WIDTH, BATCH, CHUNK = 6, 3, 5, 4
TEMPERATURES = [(4.0, None), (1.0, None), (4.0, 2.0)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(class_matrix, "_CHUNK_OF_ONE_THREAD", CHUNK)
    monkeypatch.setattr(class_matrix, "_CHUNK_OF_MORE_THREADS", CHUNK)


@pytest.fixture(params=[0, 300, 10**6], ids=["nothing_kept", "some_kept", "all_kept"])
def kept(request, monkeypatch):
    """In bytes, for student and teacher together: two chunks of four classes for five images are 320."""
    monkeypatch.setattr(streamed, "KEPT_BYTES", request.param)
    return request.param


def _embeddings(width=WIDTH, batch=BATCH, size=3.0):
    return size * torch.randn(batch, width)


def _frozen(kind, num_labels, **options):
    return make_head(kind, WIDTH, num_labels, seed=1, **options).requires_grad_(False)


@pytest.mark.parametrize("temperatures", TEMPERATURES)
@pytest.mark.parametrize("kind", ["linear", "cosine", "arcface"])
@pytest.mark.parametrize("num_labels", [1, 3, 4, 5, 11, 12])
def test_through_the_frozen_head_of_the_teacher(kind, num_labels, temperatures):
    """Value and gradient, from the embedding of the teacher and from its moments."""
    head, student, teacher = _frozen(kind, num_labels), _embeddings(), _embeddings()
    exact, z64 = in_float64(head), student.double().requires_grad_()
    expected = dense_kd(exact(z64), exact(teacher.double()), *temperatures)
    expected.backward()
    z, again = student.clone().requires_grad_(), student.clone().requires_grad_()
    found = chunked_kd(z, head, teacher, head, *temperatures)
    short = moments_kd(again, head, teacher_moments(teacher, head, *temperatures), temperatures[0])
    (found + short).backward()
    for loss, gradient in ((found, z.grad), (short, again.grad)):
        if num_labels == 1:
            # Both softmaxes are 1, and what is left is rounding.
            assert abs(loss.item()) < 1e-5 and gradient.norm() < 1e-5
        else:
            assert_close(loss.detach(), expected.detach())
            assert_close(gradient, z64.grad)


@pytest.mark.parametrize("temperatures", TEMPERATURES)
@pytest.mark.parametrize(
    "student_kind, teacher_kind",
    [("linear", "linear"), ("arcface", "linear"), ("linear", "cosine"), ("cosine", "arcface")],
)
@pytest.mark.parametrize("num_labels", [3, 8, 11])
def test_through_a_head_that_learns(student_kind, teacher_kind, num_labels, temperatures, kept):
    head, teacher_head = make_head(student_kind, OWN_WIDTH, num_labels), _frozen(teacher_kind, num_labels)
    student, teacher = _embeddings(OWN_WIDTH), _embeddings()
    exact, z64, z = in_float64(head), student.double().requires_grad_(), student.clone().requires_grad_()
    expected = dense_kd(exact(z64), in_float64(teacher_head)(teacher.double()), *temperatures)
    found = chunked_kd(z, head, teacher, teacher_head, *temperatures)
    (0.5 * expected).backward()
    (0.5 * found).backward()
    assert found.dtype == torch.float32
    assert_close(found.detach(), expected.detach())
    assert_close(z.grad, z64.grad)
    assert_same_gradients(head, exact)


def test_it_has_the_value_of_the_loss_of_this_package():
    head, own = _frozen("linear", 11), make_head("arcface", OWN_WIDTH, 11)
    student, small, teacher = _embeddings(), _embeddings(OWN_WIDTH), _embeddings()
    for embeddings, read_by in ((student, head), (small, own)):
        found = chunked_kd(embeddings, read_by, teacher, head, 4.0, 2.0)
        torch.testing.assert_close(found, kd_loss(read_by(embeddings), head(teacher), 4.0, 2.0), rtol=1e-5, atol=1e-6)


def test_another_frozen_head_with_equal_weights():
    """The head of the teacher is recognized as an object; a copy takes the general way to the same numbers."""
    head, student, teacher = _frozen("arcface", 11), _embeddings(), _embeddings()
    copy = _frozen("arcface", 11)
    results = []
    for other in (head, copy):
        z = student.clone().requires_grad_()
        loss = chunked_kd(z, other, teacher, head, 4.0)
        loss.backward()
        results.append((loss.detach(), z.grad))
    assert copy.weight is not head.weight and torch.equal(copy.weight, head.weight)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_a_teacher_s_head_that_learns_does_so_through_the_student_alone():
    head, student, teacher = make_head("linear", WIDTH, 11), _embeddings(), _embeddings().requires_grad_()
    exact = in_float64(head)
    chunked_kd(student, head, teacher, head, 4.0).backward()
    dense_kd(exact(student.double()), exact(teacher.detach().double()), 4.0).backward()
    assert_same_gradients(head, exact)
    assert teacher.grad is None


def test_one_image_and_one_that_is_the_teacher_s():
    head = _frozen("arcface", 11)
    teacher = _embeddings(batch=1)
    z = teacher.clone().requires_grad_()
    loss = chunked_kd(z, head, teacher, head, 4.0)
    loss.backward()
    assert abs(loss.item()) < 1e-5 and z.grad.norm() < 1e-5


def _check(function, *inputs):
    assert torch.autograd.gradcheck(function, [tensor.double().requires_grad_() for tensor in inputs])


@pytest.mark.parametrize("kind", ["linear", "arcface"])
def test_gradients_are_those_of_finite_differences(kind, kept):
    own, head = make_head(kind, OWN_WIDTH, 9).double(), _frozen(kind, 9).double()
    teacher = _embeddings().double()
    moments = teacher_moments(teacher, head, 4.0)
    _check(lambda z: chunked_kd(z, head, teacher, head, 4.0), _embeddings())
    _check(lambda z: moments_kd(z, head, moments, 4.0), _embeddings())
    z = _embeddings(OWN_WIDTH).double().requires_grad_()
    parameters = list(own.parameters())
    assert torch.autograd.gradcheck(lambda z, *_: chunked_kd(z, own, teacher, head, 4.0, 2.0), (z, *parameters))


@pytest.mark.parametrize("kind, temperature, size", [("arcface", 0.05, 1.0), ("linear", 0.1, 100.0)])
def test_extreme_logits_do_not_overflow(kind, temperature, size, kept):
    head, own = _frozen(kind, 11, scale=64.0), make_head(kind, WIDTH, 11, scale=64.0)
    student, teacher = _embeddings(size=size), _embeddings(size=size)
    moments = teacher_moments(teacher, head, temperature)
    for read_by in (head, own):
        expected = dense_kd(in_float64(read_by)(student.double()), in_float64(head)(teacher.double()), temperature)
        found = chunked_kd(student.requires_grad_(), read_by, teacher, head, temperature)
        found.backward()
        assert_close(found.detach(), expected)
        assert student.grad.isfinite().all()
    short = moments_kd(student, head, moments, temperature)
    assert_close(short.detach(), dense_kd(head(student), head(teacher), temperature))


@pytest.mark.parametrize("kind", ["linear", "arcface"])
def test_autocast_rounds_the_factors_of_products_alone(kind, monkeypatch):
    """In the backward pass too, which is outside of it. Moments, which are used many times, are not rounded."""
    monkeypatch.setattr("headshare_hf.losses.products.has_bfloat16", lambda device: True)
    for name in ("_CHUNK_OF_ONE_THREAD", "_CHUNK_OF_MORE_THREADS"):
        monkeypatch.setattr(class_matrix, name, 512)
    head, own = (make_head(kind, width, 2000, seed=seed) for width, seed in ((128, 1), (64, 0)))
    head.requires_grad_(False)
    teacher, small = 0.3 * torch.randn(64, 128), 0.3 * torch.randn(64, 64)
    student = teacher + 0.2 * torch.randn(64, 128)
    results = []
    for enabled in (False, True):
        zs, own.weight.grad = [z.clone().requires_grad_() for z in (student, student, small)], None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            moments = teacher_moments(teacher, head, 4.0)
            losses = [
                moments_kd(zs[0], head, moments, 4.0),
                chunked_kd(zs[1], head, teacher, head, 4.0),
                chunked_kd(zs[2], own, teacher, head, 4.0),
            ]
        sum(losses).backward()
        losses = [loss.detach() for loss in losses]
        results.append([*(z.grad for z in zs), own.weight.grad, *losses, *vars(moments).values()])
    for plain, mixed, tolerance in zip(*results, 4 * [1e-2] + 3 * [1e-3] + 2 * [0], strict=True):
        assert mixed.dtype == torch.float32 and torch.equal(plain, mixed) == (tolerance == 0)
        assert_close(mixed, plain, tolerance)


def test_a_teacher_in_half_precision_and_in_inference_mode():
    head, own, student = _frozen("linear", 9).bfloat16(), make_head("linear", OWN_WIDTH, 9), _embeddings(OWN_WIDTH)
    with torch.inference_mode():
        teacher = _embeddings().bfloat16()
    z = student.clone().requires_grad_()
    found = chunked_kd(z, own, teacher, head, 4.0)
    found.backward()
    expected = dense_kd(in_float64(own)(student.double()), in_float64(head)(teacher.double()), 4.0)
    assert_close(found.detach(), expected.detach())


def test_moments_are_the_entropy_and_the_mean_center():
    head, teacher = _frozen("linear", 9), _embeddings()
    head.bias.zero_()
    moments = teacher_moments(teacher, head, 4.0)
    log_p = (head(teacher) / 4.0).log_softmax(1)
    torch.testing.assert_close(moments.mean_center, log_p.exp() @ head.weight)
    torch.testing.assert_close(moments.neg_entropy, (log_p.exp() * log_p).sum(1))
    assert not moments.mean_center.requires_grad


def test_moments_from_storage():
    """In half precision, and as tensors of inference mode; the loss stays in float32."""
    head, student, teacher = _frozen("arcface", 9), _embeddings().requires_grad_(), _embeddings()
    with torch.inference_mode():
        moments = teacher_moments(teacher, head, 4.0)
        stored = TeacherMoments(moments.mean_center.half(), moments.neg_entropy)
    loss = moments_kd(student, head, stored, 4.0)
    loss.backward()
    assert loss.dtype == torch.float32
    expected = chunked_kd(student, head, teacher, head, 4.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)


def test_moments_of_a_head_that_learns_are_refused():
    head = make_head("linear", WIDTH, 9)
    with pytest.raises(ValueError, match="`head` learns, .* freeze it"):
        moments_kd(_embeddings(), head, teacher_moments(_embeddings(), head, 4.0), 4.0)


def test_moments_of_other_images_are_refused():
    head = _frozen("linear", 9)
    with pytest.raises(ValueError, match=r"has shape \(5, 6\) and `student_embeddings` \(2, 6\)"):
        moments_kd(_embeddings(batch=2), head, teacher_moments(_embeddings(), head, 4.0), 4.0)


def test_heads_of_other_classes_are_refused():
    with pytest.raises(ValueError, match="the student's head has 8 classes and the teacher's 9"):
        chunked_kd(_embeddings(), _frozen("linear", 8), _embeddings(), _frozen("linear", 9), 4.0)


def test_another_kind_of_head_is_refused():
    with pytest.raises(TypeError, match="not from Sequential"):
        chunked_kd(_embeddings(), nn.Sequential(), _embeddings(), _frozen("linear", 9), 4.0)
