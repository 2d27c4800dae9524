"""Margin heads against the stored logits of arcface_torch, formulas written out, and finite differences."""

import math

import pytest
import torch
from golden_data import load_golden
from torch.nn import functional as F
from toys import resnet

from headshare_hf import share_head
from headshare_hf.models.heads import CosineHead, MarginHead, create_head


STORED = {
    "arcface_s64_m0.5": ("arcface", None),
    "cosface_s64_m0.4": ("cosface", None),
    "combined_s64_1.0_0.0_0.4": ("combined", [1.0, 0.0, 0.4]),
    "combined_s64_1.0_0.5_0.0": ("combined", [1.0, 0.5, 0.0]),
}
KINDS = [("arcface", None), ("cosface", None), ("combined", [0.9, 0.4, 0.15]), ("adaface", None)]


def _head(kind, margin=None, scale=64.0, gradient="true", width=4, classes=30):
    return create_head(kind, width, classes, scale, margin, gradient)


def _slopes(head, cosines):
    """Derivative of the margin at some cosines."""
    cosines = cosines.clone().requires_grad_()
    counted = torch.ones(len(cosines), dtype=torch.bool)
    head.margin.eval()(cosines, torch.full((len(cosines),), 20.0), counted).sum().backward()
    return cosines.grad


@pytest.mark.parametrize("name", STORED)
def test_logits_are_those_of_arcface_torch(name):
    stored = load_golden("face/margins")
    head = _head(*STORED[name])
    found = head.margin_logits(64 * stored["cosine"], stored["labels"], torch.zeros(8, 4))
    # 64 times the rounding of a float32 arccos.
    torch.testing.assert_close(found, stored[name], rtol=0, atol=3e-5)
    assert (stored["labels"] == -1).any()


@pytest.mark.parametrize("kind, margin", KINDS)
def test_only_the_right_class_gets_harder(kind, margin):
    head = _head(kind, margin).eval()
    generator = torch.Generator().manual_seed(0)
    logits = 64 * (2 * torch.rand(6, 30, generator=generator) - 1)
    labels = torch.tensor([3, -1, 0, 29, -1, 7])
    found = head.margin_logits(logits, labels, torch.full((6, 4), 10.0))
    changed = found != logits
    assert changed.sum() == 4
    for row, label in enumerate(labels.tolist()):
        assert label < 0 or (changed[row, label] and found[row, label] < logits[row, label])


@pytest.mark.parametrize("kind, margin", KINDS)
def test_the_true_gradient_is_that_of_the_values(kind, margin):
    """Central differences in float64, away from the ends."""
    head = _head(kind, margin)
    cosines = torch.linspace(-0.95, 0.95, 39, dtype=torch.float64)
    norms, counted = torch.full((39,), 35.0, dtype=torch.float64), torch.ones(39, dtype=torch.bool)
    head.margin.eval()
    step = 1e-6
    numeric = (head.margin(cosines + step, norms, counted) - head.margin(cosines - step, norms, counted)) / (2 * step)
    exact = cosines.clone().requires_grad_()
    head.margin(exact, norms, counted).sum().backward()
    torch.testing.assert_close(exact.grad, numeric, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind, margin", KINDS)
def test_straight_through_has_the_same_values_and_slope_one(kind, margin):
    true, straight = _head(kind, margin), _head(kind, margin, gradient="straight_through")
    cosines = torch.linspace(-1, 1, 21)
    counted, norms = torch.ones(21, dtype=torch.bool), torch.full((21,), 20.0)
    assert torch.equal(true.margin.eval()(cosines, norms, counted), straight.margin.eval()(cosines, norms, counted))
    assert torch.equal(_slopes(straight, cosines), torch.ones(21))
    if kind == "arcface":
        slope = _slopes(true, torch.tensor([math.cos(0.3), math.cos(2.0)]))
        expected = torch.tensor([math.sin(0.8) / math.sin(0.3), math.sin(2.5) / math.sin(2.0)])
        torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("gradient", ["true", "straight_through"])
@pytest.mark.parametrize("kind, margin", KINDS)
@pytest.mark.parametrize("autocast", [False, True])
def test_cosines_of_one_have_finite_losses_and_gradients(kind, margin, gradient, autocast):
    torch.manual_seed(0)
    head = _head(kind, margin, gradient=gradient, width=8, classes=3)
    embeddings = torch.stack([head.weight[0], -head.weight[1], 100 * head.weight[2]]).detach().requires_grad_()
    labels = torch.tensor([0, 1, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = head(embeddings)
        loss = F.cross_entropy(head.margin_logits(logits, labels, embeddings), labels)
    loss.backward()
    assert logits.dtype == torch.float32 and logits.diagonal().abs().min() > 63.99
    for tensor in (loss, embeddings.grad, head.weight.grad):
        assert tensor.isfinite().all()


def test_autocast_changes_nothing():
    head, embeddings = _head("arcface"), torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(5)
    plain = head.margin_logits(head(embeddings), labels, embeddings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = head.margin_logits(head(embeddings), labels, embeddings)
    assert torch.equal(plain, mixed)


def test_half_precision_logits_are_widened():
    head = _head("cosface")
    logits = torch.zeros(1, 30, dtype=torch.bfloat16)
    found = head.margin_logits(logits, torch.tensor([2]), torch.zeros(1, 4, dtype=torch.bfloat16))
    assert found.dtype == torch.float32 and found[0, 2] == pytest.approx(-25.6)


def test_adaface_is_its_paper():
    """Equations 13 to 16 of arXiv 2204.00964, one image at a time."""
    head = _head("adaface", 0.4).train()
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(6, 4, generator=generator) * torch.tensor([1.0, 5, 20, 60, 90, 400]).unsqueeze(1)
    labels = torch.tensor([0, 1, 2, 3, -1, 5])
    logits = head(embeddings)
    found = head.margin_logits(logits, labels, embeddings)
    norms = embeddings.norm(dim=1).clamp(1e-3, 100)
    labelled = norms[labels >= 0]
    mean, std = 0.99 * 20 + 0.01 * labelled.mean(), 0.99 * 100 + 0.01 * labelled.std()
    torch.testing.assert_close(torch.stack([head.margin.norm_mean, head.margin.norm_std]), torch.stack([mean, std]))
    for row, label in enumerate(labels.tolist()):
        expected = logits[row].clone()
        if label >= 0:
            quality = max(-1.0, min(1.0, float((norms[row] - mean) / (std + 1e-3) * 0.333)))
            angle = min(max(math.acos(logits[row, label].item() / 64) - 0.4 * quality, 0.0), math.pi)
            expected[label] = 64 * (math.cos(angle) - (0.4 + 0.4 * quality))
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-3)


def test_adaface_measures_only_in_training_and_only_labelled_batches():
    head = _head("adaface")
    embeddings, unlabelled = torch.randn(3, 4), torch.full((3,), -1)
    head.eval().margin_logits(head(embeddings), torch.arange(3), embeddings)
    head.train().margin_logits(head(embeddings), unlabelled, embeddings)
    assert head.margin.norm_mean == 20 and head.margin.norm_std == 100
    head.margin_logits(head(embeddings), torch.arange(3), embeddings)
    assert head.margin.norm_mean < 20


def test_prediction_has_no_margin_and_training_has():
    model = resnet(head_type="arcface", num_labels=3)
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, -1])
    model.eval()
    output = model(images, labels=labels)
    assert float(output.loss) == pytest.approx(float(F.cross_entropy(output.logits[:3], labels[:3])), rel=1e-5)
    for module in model.headshare.modules():
        # So that batch statistics do not change the embedding between the two modes.
        module.training = False
    model.training = model.classifier.training = True
    trained = model(images, labels=labels)
    harder = model.classifier.margin_logits(trained.logits, labels, trained.embeddings)
    assert float(trained.loss) == pytest.approx(float(F.cross_entropy(harder[:3], labels[:3])), rel=1e-5)
    assert trained.loss > output.loss + 1


def test_centers_pass_between_heads_of_different_margins():
    source, target = resnet(head_type="arcface", seed=0), resnet(head_type="adaface", seed=1)
    share_head(source, target)
    assert torch.equal(source.classifier.weight, target.classifier.weight)
    assert isinstance(target.classifier, MarginHead) and not target.classifier.weight.requires_grad
    with pytest.raises(ValueError, match="`head_scale` differs: 64.0 and 16.0"):
        share_head(source, resnet(head_type="cosine"))
    assert type(resnet(head_type="cosine").classifier) is CosineHead


def test_heads_say_what_they_are():
    assert "m1=1.0, m2=0.5, m3=0.0, gradient=true" in repr(_head("arcface"))
    assert "m=0.4, h=0.333" in repr(_head("adaface"))
