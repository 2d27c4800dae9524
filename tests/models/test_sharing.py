"""Sharing a classifier between models of this package, of transformers and of timm."""

import copy
import gc
import pickle
import weakref

import pytest
import timm
import torch
from toys import assert_same, resnet, snapshot, vit
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTForImageClassification,
)

from headshare_hf import HeadShareModel, share_head
from headshare_hf.models import check_label_maps, embedding_tap, find_classifier, with_head_length


WIDTH, NUM_LABELS = 64, 5


def _deit(kind=DeiTForImageClassification):
    return kind(
        DeiTConfig(
            hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=32,
            patch_size=16, num_labels=NUM_LABELS,
        )
    )  # fmt: skip


def _swin():
    return SwinForImageClassification(
        SwinConfig(
            image_size=32,
            patch_size=4,
            embed_dim=32,
            depths=[1, 1],
            num_heads=[2, 2],
            window_size=4,
            num_labels=NUM_LABELS,
        )
    )


def _convnext():
    return ConvNextForImageClassification(
        ConvNextConfig(hidden_sizes=[16, WIDTH], depths=[1, 1], num_stages=2, num_labels=NUM_LABELS)
    )


def _hf_resnet():
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=16, hidden_sizes=[16, WIDTH], depths=[1, 1], layer_type="basic", num_labels=NUM_LABELS
        )
    )


def _timm():
    config = TimmWrapperConfig(
        architecture="test_convnext", num_labels=NUM_LABELS, model_args={"dims": (16, 16, 32, WIDTH)}
    )
    return TimmWrapperForImageClassification(config)


FOREIGN = {
    "vit": lambda: vit(NUM_LABELS, WIDTH, image_size=32),
    "deit": _deit,
    "swin": _swin,
    "convnext": _convnext,
    "resnet": _hf_resnet,
    "timm": _timm,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_head_goes_from_a_foreign_model_to_ours_and_back(name):
    foreign, ours = FOREIGN[name](), resnet(num_labels=NUM_LABELS)
    share_head(foreign, ours)
    assert_same(snapshot(find_classifier(ours)), snapshot(find_classifier(foreign)))
    assert not any(p.requires_grad for p in find_classifier(ours).parameters())
    assert all(p.requires_grad for p in find_classifier(foreign).parameters())
    fresh = resnet(num_labels=NUM_LABELS, seed=7)
    share_head(fresh, foreign, freeze=False)
    assert_same(snapshot(find_classifier(fresh)), snapshot(find_classifier(foreign)))
    assert all(p.requires_grad for p in find_classifier(foreign).parameters())


@pytest.mark.parametrize("name", FOREIGN)
def test_the_tap_reads_what_the_classifier_reads(name):
    model = FOREIGN[name]().eval()
    tap = embedding_tap(model)
    with torch.no_grad():
        logits = model(pixel_values=torch.randn(2, 3, 32, 32)).logits
        embeddings = tap.take()
        torch.testing.assert_close(find_classifier(model)(embeddings), logits)
    assert embeddings.shape == (2, WIDTH)
    torch.testing.assert_close(tap.take(), embeddings)
    with pytest.raises(ValueError, match="did not call its classifier"):
        tap.take()
    tap.remove()
    model(pixel_values=torch.randn(1, 3, 32, 32))
    with pytest.raises(ValueError, match="did not call its classifier"):
        tap.take()


@pytest.mark.parametrize("name", FOREIGN)
def test_inside_of_without_logits_the_classifier_is_not_run(name):
    model, images = FOREIGN[name]().eval(), torch.randn(2, 3, 32, 32)
    tap, before = embedding_tap(model), snapshot(model)
    with torch.no_grad():
        logits = model(pixel_values=images).logits
        expected = tap.take()
        with pytest.raises(RuntimeError, match="halfway"), tap.without_logits():
            assert model(pixel_values=images).logits.shape == (2, WIDTH)
            assert torch.equal(tap.take(), expected)
            assert_same(snapshot(model), before)
            raise RuntimeError("halfway")
        assert torch.equal(model(pixel_values=images).logits, logits)
    assert "forward" not in vars(find_classifier(model))


def test_without_logits_gives_back_a_forward_of_the_layer_s_own():
    model = vit(NUM_LABELS, WIDTH, image_size=32)
    layer = find_classifier(model)
    layer.forward = own = lambda embeddings: 2 * embeddings
    with embedding_tap(model).without_logits():
        assert layer.forward is not own
    assert layer.forward is own


def test_our_models_need_no_tap():
    assert embedding_tap(resnet()) is None


def test_a_cosine_head_is_shared_with_its_scale():
    source, target = (resnet(head_type="cosine", head_scale=8.0, seed=seed) for seed in (0, 1))
    share_head(source, target)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(source.classifier(target.headshare(images).embeddings), target(images).logits)
    assert target(images).logits.abs().max() <= 8.0
    with pytest.raises(ValueError, match="`head_scale` differs: 8.0 and 16.0"):
        share_head(source, resnet(head_type="cosine"))
    with pytest.raises(ValueError, match="CosineHead cannot be shared .* Linear"):
        share_head(source, resnet())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: _deit(DeiTForImageClassificationWithTeacher), "has no classifier that can be shared.*no classifier"),
        (lambda: HeadShareModel(resnet().config), "found no classifier"),
        (lambda: _two_layers(), "Sequential with 2 linear layers"),
        (lambda: _convolution(), "Sequential with 1 linear layers"),
    ],
)
def test_a_model_without_one_linear_classifier_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        find_classifier(make())


def _two_layers():
    model = vit()
    model.classifier = torch.nn.Sequential(torch.nn.Linear(32, 16), torch.nn.GELU(), torch.nn.Linear(16, 5))
    return model


def _convolution():
    model = vit()
    model.classifier = torch.nn.Sequential(torch.nn.Conv2d(32, 16, 1), torch.nn.Flatten(), torch.nn.Linear(16, 5))
    return model


def test_a_classifier_on_a_feature_map_is_refused():
    model = vit()
    tap = embedding_tap(model)
    model.classifier(torch.randn(2, 4, 32))
    with pytest.raises(ValueError, match=r"reads a tensor of shape \(2, 4, 32\), not one embedding"):
        tap.take()


def test_differences_are_refused_with_their_remedy():
    with pytest.raises(ValueError, match="width 256 but .* width 64.*projector='linear'"):
        share_head(resnet("resnet8x4"), resnet())
    with pytest.raises(ValueError, match="has 5 classes and .* has 6"):
        share_head(resnet(), resnet(num_labels=6))
    without_bias = resnet()
    without_bias.classifier = torch.nn.Linear(64, 5, bias=False)
    with pytest.raises(ValueError, match=r"one classifier has \['bias', 'weight'\] and the other \['weight'\]"):
        share_head(resnet(), without_bias)
    with pytest.raises(ValueError, match="would be rounded to torch.bfloat16"):
        share_head(resnet(), resnet(seed=1).to(torch.bfloat16))


def _named(names):
    model = resnet(num_labels=len(names))
    model.config.id2label = dict(enumerate(names))
    return model


def test_label_maps_must_agree_and_are_adopted_where_there_is_none():
    with pytest.raises(ValueError, match="class 1 is 'dog' in .* but 'bird' in"):
        check_label_maps(_named(["cat", "dog"]), _named(["cat", "bird"]))
    target = resnet(num_labels=2)
    share_head(_named(["cat", "dog"]), target)
    assert target.config.id2label == {0: "cat", 1: "dog"}
    named = _named(["cat", "dog"])
    share_head(resnet(num_labels=2), named)
    assert named.config.id2label == {0: "cat", 1: "dog"}


def test_a_shared_bfloat16_head_widens_without_loss():
    source = vit(hidden_size=64).to(torch.bfloat16)
    target = resnet()
    share_head(source, target)
    assert torch.equal(target.classifier.weight.bfloat16(), source.classifier.weight)
    assert isinstance(source, ViTForImageClassification)


def test_a_tap_does_not_keep_the_classifier_alive():
    model = vit()
    tap, classifier = embedding_tap(model), weakref.ref(model.classifier)
    assert embedding_tap(model) is tap
    del model
    gc.collect()
    assert classifier() is None
    tap.remove()


def test_a_bare_timm_network_does_not_say_its_classes():
    bare = timm.create_model("test_convnext", num_classes=NUM_LABELS, dims=(16, 16, 32, WIDTH))
    for source, target in ((bare, resnet()), (resnet(), bare)):
        for check in (share_head, check_label_maps):
            with pytest.raises(ValueError, match="a bare ConvNeXt does not say .* `AutoModelForImageClassification`"):
                check(source, target)


def test_classes_that_are_not_counted_from_zero_are_named():
    shifted = _named(["cat", "dog"])
    shifted.config.id2label = {1: "cat", 2: "dog"}
    with pytest.raises(ValueError, match="class 0 is 'cat' in .* but None in"):
        check_label_maps(_named(["cat", "dog"]), shifted)
    with pytest.raises(ValueError, match="class 0 is None in .* but 'cat' in"):
        check_label_maps(shifted, _named(["cat", "dog"]))


def test_a_tapped_model_can_be_copied_and_sent():
    model = vit()
    tap = embedding_tap(model)
    images = torch.randn(2, 3, 16, 16)
    model(pixel_values=images)
    expected = tap.take()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        own = embedding_tap(other)
        assert own is not tap
        other(pixel_values=images)
        assert torch.equal(own.take(), expected)
        with own.without_logits():
            # Of the copy alone.
            assert model(pixel_values=images).logits.shape == (2, 5)
            assert torch.equal(other(pixel_values=images).logits, expected)


def test_a_head_of_another_length_decides_the_same():
    model = resnet(seed=1).eval()
    before = snapshot(model)
    longer = with_head_length(model, 3.5)
    assert_same(snapshot(model), before)
    assert torch.linalg.vector_norm(longer.classifier.weight.detach(), dim=1).mean() == pytest.approx(3.5, rel=1e-5)
    images = torch.randn(4, 3, 16, 16)
    factor = longer.classifier.weight[0, 0] / model.classifier.weight[0, 0]
    torch.testing.assert_close(longer(images).logits, factor * model(images).logits)


@pytest.mark.parametrize(
    "model, length, message",
    [(resnet, 0.0, "length of class vectors is 0.0; it must be positive"), (resnet, float("nan"), "is nan"),
     (lambda: resnet(head_type="arcface"), 2.0, "class centers of a MarginHead have no length that matters")],
)  # fmt: skip
def test_a_length_without_effect_is_refused(model, length, message):
    with pytest.raises(ValueError, match=message):
        with_head_length(model(), length)
