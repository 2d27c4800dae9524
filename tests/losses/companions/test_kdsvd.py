"""Singular vectors and their gradient, and the loss made of them."""

import pytest
import torch
from companion_cases import draw_case, draw_features, leaves, mapped
from torch.autograd import grad

from headshare_hf.losses.companions import KDSVDLoss
from headshare_hf.losses.companions.singular_vectors import leading_vectors


@pytest.mark.parametrize("rows, columns", [(9, 4), (4, 9), (5, 5)])
def test_vectors_and_gradient_are_those_of_the_decomposition(rows, columns):
    torch.manual_seed(0)
    matrices = torch.randn(3, rows, columns, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, columns, 2, dtype=torch.float64)
    found = leading_vectors(matrices, 2)
    _, values, right = torch.linalg.svd(matrices, full_matrices=False)
    vectors = right.mT[:, :, :2]
    torch.testing.assert_close(found.values, values[:, :2])
    # Squared, so that signs do not matter.
    torch.testing.assert_close(found.vectors.square(), vectors.square())
    gradients = [grad((each.square() * weights).sum(), matrices)[0] for each in (found.vectors, vectors)]
    torch.testing.assert_close(*gradients)


def test_no_more_vectors_than_rows_or_columns():
    assert leading_vectors(torch.randn(2, 3, 8), 4).vectors.shape == (2, 8, 3)
    assert leading_vectors(torch.randn(2, 8, 3), 4).vectors.shape == (2, 3, 3)


@pytest.mark.parametrize("rows, columns", [(9, 4), (4, 9)])
def test_gradient_is_finite_for_matrices_of_low_rank(rows, columns):
    """With two singular values of zero, that of the decomposition is not a number."""
    torch.manual_seed(0)
    matrices = (torch.randn(3, rows, 1) @ torch.randn(3, 1, columns)).requires_grad_()
    vectors = leading_vectors(matrices, 3).vectors
    (found,) = grad(vectors.pow(3).sum(), matrices)
    assert 0 < found.abs().max() < 10
    # There is one direction only.
    torch.testing.assert_close(vectors.norm(dim=1), torch.tensor([[1.0, 0.0, 0.0]]).expand(3, -1))


def test_singular_values_that_rounding_cannot_tell_apart_add_nothing_to_the_gradient():
    torch.manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(4, 4))
    matrices = (turn * torch.tensor([2.0, 1.0, 1.0 + 2e-7, 0.5])).repeat(2, 1, 1).requires_grad_()
    (found,) = grad((leading_vectors(matrices, 3).vectors * torch.randn(4, 3)).sum(), matrices)
    assert 0 < found.abs().max() < 100


def test_sign_of_the_maps_of_the_student_changes_nothing():
    case = draw_case("kdsvd")
    flipped = mapped(case.student, lambda each: -each)
    torch.testing.assert_close(case.value(student=flipped), case.value())


def test_a_student_that_agrees_with_its_teacher_has_no_loss():
    case = draw_case("kdsvd", rank=2)
    assert case.value() > 1e-3
    assert case.value(student=case.teacher) < 1e-9


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("maps, most", [(((3, 6), (4, 6), (5, 3)), 4), (((3, 4), (4, 2), (4, 1)), 1)])
def test_no_more_vectors_are_compared_than_every_map_has(maps, most, side):
    """Otherwise the number would differ from stage to stage."""
    other = tuple((channels, 6) for channels, _ in maps)
    networks = [draw_features(2, 1, maps=maps), draw_features(2, 2, maps=other)]
    student, teacher = networks[side], networks[1 - side]
    shapes = student.shapes(), teacher.shapes()
    assert KDSVDLoss(*shapes, rank=most)(student, teacher).isfinite()
    with pytest.raises(ValueError, match=rf"`rank` is {most + 1}, but a map of shape \(\d, \d, \d\) has {most} sing"):
        KDSVDLoss(*shapes, rank=most + 1)


def test_loss_is_the_written_out_sum():
    case = draw_case("kdsvd")
    vectors = {}
    for side, features in (("student", case.student), ("teacher", case.teacher)):
        for stage in (1, 2):
            maps = features.hidden_states[stage].flatten(2).mT
            vectors[side, stage] = torch.linalg.svd(maps, full_matrices=False).Vh
    expected = 0.0
    for image in range(4):
        pairs = []
        for stage in (1, 2):
            target = vectors["teacher", stage][image, 0]
            target = target if target.sum() > 0 else -target
            nearest = max(vectors["student", stage][image, :4], key=lambda each, t=target: float((each @ t).abs()))
            pairs.append((nearest * (nearest @ target).sign(), target))
        for a in range(4):
            for b in range(5):
                own, other = (torch.exp(-((pairs[1][k][b] - pairs[0][k][a]) ** 2) / 8) for k in (0, 1))
                expected += float(own - other) ** 2 / 4
    assert case.value().item() == pytest.approx(expected, rel=1e-4)


def test_gradient_reaches_every_stage():
    case = draw_case("kdsvd")
    stem, *stages = leaves(case)
    case.value().backward()
    assert stem.grad is None and all(each.grad.abs().sum() > 0 for each in stages)
