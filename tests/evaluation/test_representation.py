"""Similarity and dimension of embeddings: known values, other ways to compute them, and what is refused."""

import numpy as np
import pytest
import torch

from headshare_hf.evaluation import class_alignment, effective_dimension, linear_cka


def unbiased_hsic(x, y):
    """Song et al., JMLR 2012, equation 5, on matrices of images by images."""
    k, l = (rows @ rows.T for rows in (x, y))  # noqa: E741
    k.fill_diagonal_(0)
    l.fill_diagonal_(0)
    n = len(k)
    ones = torch.ones(n, dtype=k.dtype)
    middle = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    return ((k @ l).trace() + middle - 2 / (n - 2) * (ones @ k @ l @ ones)) / (n * (n - 3))


def biased_hsic(x, y):
    """With kernels that are centered from both sides."""
    n = len(x)
    center = torch.eye(n, dtype=x.dtype) - 1 / n
    return (center @ x @ x.T @ center @ y @ y.T).trace() / (n - 1) ** 2


def ratio(hsic, x, y):
    return float(hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt())


@pytest.mark.parametrize("num_images", [40, 7])
@pytest.mark.parametrize("debiased", [False, True])
def test_cka_does_not_see_a_rotation_a_factor_and_a_shift(num_images, debiased):
    x = torch.randn(num_images, 12, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64)).Q
    assert linear_cka(x, -3 * x @ rotation + 5, debiased) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x, x * torch.arange(1, 13), debiased) < 0.95


@pytest.mark.parametrize("shapes", [(50, 8, 6), (50, 8, 90), (10, 64, 30)])
def test_cka_is_that_of_the_definition(shapes):
    num_images, *widths = shapes
    x, y = (torch.randn(num_images, width, dtype=torch.float64) for width in widths)
    y[:, :6] += x[:, :6]
    assert linear_cka(x, y) == pytest.approx(ratio(biased_hsic, x, y), rel=1e-10)
    assert linear_cka(x, y, debiased=True) == pytest.approx(ratio(unbiased_hsic, x, y), rel=1e-10)
    assert linear_cka(y, x) == pytest.approx(linear_cka(x, y), rel=1e-12)


def test_independent_embeddings_are_not_alike():
    x, y = torch.randn(5000, 10), torch.randn(5000, 10)
    assert 0 < linear_cka(x, y) < 0.01
    # Few images: the bias alone is large.
    few = [linear_cka(torch.randn(20, 100), torch.randn(20, 100)) for _ in range(20)]
    debiased = [linear_cka(torch.randn(20, 100), torch.randn(20, 100), debiased=True) for _ in range(20)]
    assert min(few) > 0.7 and abs(np.mean(debiased)) < 0.05 and min(debiased) < 0


def test_cka_by_hand():
    """Centered x is (−1, 0, 1), and y the same and (1, −2, 1), orthogonal to it: 2² / (2 · √(2² + 6²))."""
    x = torch.tensor([[4.0], [5.0], [6.0]])
    y = torch.tensor([[0.0, 3.0], [1.0, 0.0], [2.0, 3.0]])
    assert linear_cka(x, y) == pytest.approx(4 / (2 * 40**0.5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_it_is_computed_in_float64(dtype):
    x = 100 + torch.randn(30, 5)
    x, y = x.to(dtype).requires_grad_(), torch.randn(30, 4).to(dtype)
    assert linear_cka(x, y) == linear_cka(x.double(), y.double())
    assert linear_cka(x.float().detach().numpy(), y) == linear_cka(x, y)


@pytest.mark.parametrize("num_images", [400, 6])
def test_effective_dimension_is_of_the_spectrum(num_images):
    x = torch.randn(num_images, 9, dtype=torch.float64) * torch.arange(1, 10)
    spectrum = torch.linalg.eigvalsh(x.T.cov())
    assert effective_dimension(x) == pytest.approx(float(spectrum.sum() ** 2 / spectrum.square().sum()), rel=1e-10)


def test_effective_dimension_counts_directions():
    line = torch.randn(50, 1) * torch.randn(1, 20) + 7
    assert effective_dimension(line) == pytest.approx(1, abs=1e-6)
    axes = torch.cat([torch.eye(6), -torch.eye(6)])
    assert effective_dimension(axes) == pytest.approx(6)


def test_alignment_is_the_mean_cosine():
    labels, weights = torch.randint(4, (30,)), torch.randn(4, 5)
    embeddings = torch.randn(30, 5) + 3
    centered = (embeddings - embeddings.mean(0)).numpy()
    cosines = [
        float(row @ weights[label].numpy()) / np.linalg.norm(row) / np.linalg.norm(weights[label])
        for row, label in zip(centered, labels, strict=True)
    ]
    assert class_alignment(embeddings, labels, weights.requires_grad_()) == pytest.approx(np.mean(cosines), abs=1e-6)


def test_classes_that_collapsed_onto_their_weights_are_aligned():
    """A simplex, shifted, with weights of another length."""
    labels = torch.arange(12) % 4
    simplex = torch.eye(4) - 0.25
    assert class_alignment(simplex[labels] + 2, labels, 5 * simplex) == pytest.approx(1)
    assert class_alignment(simplex[labels] + 2, labels, -simplex) == pytest.approx(-1)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: linear_cka(torch.randn(3, 2), torch.randn(4, 2)), "`first` has 3 images and `second` has 4"),
        (lambda: linear_cka(torch.randn(3), torch.randn(3, 2)), r"`first` has shape \(3,\)"),
        (lambda: linear_cka(torch.randn(3, 2), torch.randn(3, 2), True), "needs at least 4 images, and there are 3"),
        (
            lambda: linear_cka(torch.eye(6), torch.randn(6, 2), True),
            "in `first` every image is as far from every other",
        ),
        (lambda: linear_cka(torch.randn(3, 2), torch.full((3, 2), 0.1)), "the same embedding in `second`"),
        (lambda: effective_dimension(torch.randn(1, 2)), "`embeddings` has 1 images; there must be at least 2"),
        (
            lambda: effective_dimension([[0.0], [float("nan")]]),
            "the embedding of image 1 in `embeddings` is not finite",
        ),
        (
            lambda: class_alignment(torch.randn(3, 2), [0, 1, 1], torch.ones(2, 3)),
            "embeddings of width 2 have no angle with class weights of width 3",
        ),
        (
            lambda: class_alignment(torch.randn(3, 2), [0, 1, 2], torch.ones(2, 2)),
            "label 2 of image 2 is outside of 0 ... 1",
        ),
        (lambda: class_alignment(torch.randn(3, 2), [0, -1, 1], torch.ones(2, 2)), "label -1 of image 1"),
        (
            lambda: class_alignment(torch.randn(3, 2), [0, 1], torch.ones(2, 2)),
            r"labels have shape \(2,\).*expected 3",
        ),
        (lambda: class_alignment(torch.randn(2, 2), [0.0, 1.0], torch.ones(2, 2)), "dtype torch.float32"),
        (lambda: class_alignment(torch.randn(2, 2), [0, 1], torch.eye(2) * torch.tensor([1, 0])), "zeros for class 1"),
    ],
)
def test_what_has_no_value_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_class_that_does_not_occur_may_have_no_weights():
    weights = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert class_alignment(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), [0, 0], weights) == pytest.approx(0)
