"""Batch normalization of a frozen network, multiplied into the layer before it."""

import logging

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from toys import ToyImages, arguments, assert_same, losses, resnet, snapshot, vit

from headshare_hf import DistillationTrainer, HeadShareConfig, HeadShareForImageClassification
from headshare_hf.trainer.folding import FoldablePair, find_foldable, fold, folded_network
from headshare_hf.trainer.teacher import FrozenTeacher, InputAdapter


def _settled(model, size=16, channels=3):
    """In evaluation mode, with statistics that are not those of a new network."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, channels, size, size) * 2 + 1)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
    return model.eval().requires_grad_(False)


class Plain(nn.Module):
    """Pairs that can be folded: with bias and without, with an activation inside, and behind a linear layer."""

    def __init__(self):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.second, self.norm2 = nn.Conv2d(4, 6, 3, stride=2, groups=2), BatchNormAct2d(6)
        self.third, self.norm3 = nn.Linear(6, 5), nn.BatchNorm1d(5)
        self.classifier = nn.Linear(5, 2)

    def forward(self, images):
        maps = self.norm2(self.second(self.norm1(self.first(images)).relu_()))
        return self.classifier(self.norm3(self.third(maps.mean(dim=(2, 3)))))


class Entangled(nn.Module):
    """Layers with a second reader, called twice, changed on the way, or of a class that does more: none can be folded."""

    def __init__(self):
        super().__init__()
        self.shared, self.after_shared = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.twice, self.after_twice = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.other, self.after_other = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.hooked, self.after_hooked = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.special, self.after_special = Centered(3, 3, 1), nn.BatchNorm2d(3)
        self.batch, self.after_batch = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)
        self.hooked.register_forward_hook(lambda module, args, output: output * 2)

    def forward(self, images):
        found = self.shared(images)
        maps = self.after_shared(found) + found
        maps = self.after_twice(self.twice(self.twice(maps)))
        maps = self.after_other(self.other(maps).relu())
        maps = self.after_special(self.special(self.after_hooked(self.hooked(maps))))
        return self.after_batch(self.batch(maps))


class Centered(nn.Conv2d):
    """A convolution that is more than one."""

    def forward(self, images):
        return super().forward(images) - images.mean()


@pytest.mark.parametrize("name", ["resnet14", "wrn_16_1", "vgg8", "ShuffleV2"])
def test_maps_of_a_folded_teacher_are_those_of_the_teacher(name):
    model, images = _settled(resnet(name)), torch.randn(4, 3, 16, 16) * 2 + 1
    teacher = FrozenTeacher(
        model, torch.device("cpu"), InputAdapter(None, None), torch.no_grad, fold=True, with_maps=True
    )
    found, expected = teacher(images), model(images, output_hidden_states=True)
    assert teacher._network is not model
    for kind in ("hidden_states", "pre_activations"):
        for ours, theirs in zip(found.maps[kind], getattr(expected, kind), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.maps["final_map"], expected.final_map, rtol=1e-4, atol=1e-4)


def test_a_layer_whose_output_is_returned_is_not_folded():
    model = _settled(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    images = torch.randn(2, 3, 8, 8)

    def run():
        first = model[0](images)
        return first, model[3](model[2](model[1](first)))

    assert find_foldable(model, run) == [FoldablePair("2", "3")]


def test_every_normalization_with_its_own_layer_is_found_and_folded():
    model = _settled(Plain())
    before, images = snapshot(model), torch.randn(4, 3, 16, 16)
    pairs = find_foldable(model, lambda: model(images))
    assert pairs == [FoldablePair("first", "norm1"), FoldablePair("second", "norm2"), FoldablePair("third", "norm3")]
    folded = fold(model, pairs, model.classifier)
    torch.testing.assert_close(folded(images), model(images), rtol=1e-5, atol=1e-5)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert_same(snapshot(model), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model(images), Plain.forward(model, images))


def test_new_weights_lie_as_the_images_do():
    model = _settled(Plain())
    before = model.first.weight.stride()
    for layout in (torch.contiguous_format, torch.channels_last):
        images = torch.randn(4, 3, 16, 16).contiguous(memory_format=layout)
        found = folded_network(model, lambda network, batch: network(batch), images, required=True)
        assert all(layer.weight.is_contiguous(memory_format=layout) for layer in (found.first, found.second))
    assert model.first.weight.stride() == before


def test_what_is_shared_and_what_stays_is_not_copied():
    model = _settled(Plain())
    pairs = find_foldable(model, lambda: model(torch.randn(2, 3, 16, 16)))
    folded = fold(model, pairs[:1], model.classifier)
    assert folded.classifier is model.classifier
    assert folded.second is not model.second and folded.second.weight is model.second.weight
    assert folded.first.weight is not model.first.weight


def test_layers_that_others_read_are_left_alone():
    model = _settled(Entangled())
    assert find_foldable(model, lambda: model(torch.randn(2, 3, 16, 16))) == []


def test_a_layer_can_be_excluded():
    model = _settled(Plain())
    pairs = find_foldable(model, lambda: model(torch.randn(2, 3, 16, 16)), excluded=model.third)
    assert [pair.layer for pair in pairs] == ["first", "second"]


@pytest.mark.parametrize(
    "backbone, image_size, folded, all_norms",
    [
        ("resnet20", 16, 21, 21),
        ("wrn_16_1", 16, 6, 13),
        ("vgg8", 32, 5, 5),
        ("ShuffleV2", 32, 56, 56),
        ("mobilefacenet", 112, 50, 50),
        ("iresnet18", 112, 22, 31),
    ],
)
def test_networks_of_this_package_give_the_same_folded(backbone, image_size, folded, all_norms):
    torch.manual_seed(0)
    model = HeadShareForImageClassification(HeadShareConfig(backbone=backbone, num_labels=5, image_size=image_size))
    _settled(model, image_size)
    images = torch.randn(4, 3, image_size, image_size)

    def run(network, images):
        output = network(images)
        return output.logits, output.embeddings

    found = folded_network(model, run, images, model.classifier, required=True)
    assert sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()) == all_norms
    left = sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in found.modules())
    assert all_norms - left == folded
    for ours, theirs in zip(run(found, images), run(model, images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


class Switching(nn.Module):
    """Does something else with few images, so that what was found on two of them does not hold."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images):
        found = self.conv(images)
        return self.norm(found) if len(found) < 3 else self.norm(found) + found


def _run(network, images):
    return network(images)


def test_a_network_that_computes_something_else_stays_as_it_is(caplog):
    model, images = _settled(Switching()), torch.randn(4, 3, 8, 8)
    with caplog.at_level(logging.INFO, logger="headshare_hf"):
        assert folded_network(model, _run, images) is model
    assert "Switching computes something else when folded (relative difference " in caplog.text
    with pytest.raises(ValueError, match=r"`fold_teacher` is True, but Switching computes something else .* leave"):
        folded_network(model, _run, images, required=True)


@pytest.mark.parametrize(
    "model, why",
    [
        (vit(), "ViTForImageClassification has no batch normalization that can be folded"),
        (_settled(Entangled()), "Entangled has no batch normalization that can be folded"),
        (_settled(Plain()).bfloat16(), "Plain has weights that are not float32"),
    ],
)
def test_nothing_to_fold_is_an_error_only_where_it_was_asked_for(model, why):
    images = torch.randn(2, 3, 16, 16).to(next(model.parameters()).dtype)
    assert folded_network(model, _run, images) is model
    with pytest.raises(ValueError, match=f"`fold_teacher` is True, but {why}.*; leave `fold_teacher` out"):
        folded_network(model, _run, images, required=True)


def _distill(folder, teacher, **fields):
    options = {"method": "th_kde", "channels_last": False, **fields}
    trainer = DistillationTrainer(
        resnet(seed=1), arguments(folder, **options), teacher=teacher, train_dataset=ToyImages()
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("switch", [None, True])
def test_training_with_a_folded_teacher_changes_only_rounding(tmp_path, switch, caplog):
    teacher = _settled(resnet("resnet14", seed=2))
    before = snapshot(teacher)
    with caplog.at_level(logging.INFO, logger="headshare_hf"):
        plain = _distill(tmp_path / "plain", teacher, fold_teacher=False)
        assert "folded" not in caplog.text
        folded = _distill(tmp_path / "folded", teacher, fold_teacher=switch)
    # Whether rounding shows in a loss depends on the processor.
    assert "folded 15 batch normalizations of HeadShareForImageClassification" in caplog.text
    torch.testing.assert_close(losses(folded), losses(plain), rtol=1e-4, atol=0)
    assert_same(snapshot(teacher), before)
    assert folded.teacher.model is teacher and folded.teacher.classifier is teacher.classifier
    assert folded.identity == plain.identity


def test_the_embedding_of_a_folded_foreign_network_is_tapped():
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5)
    teacher = ResNetForImageClassification(config)
    teacher.train()
    with torch.no_grad():
        teacher(pixel_values=torch.randn(8, 3, 32, 32) * 3)
    images = torch.randn(4, 3, 32, 32)
    plain, folded = (
        FrozenTeacher(teacher, torch.device("cpu"), InputAdapter(None, None), torch.no_grad, fold=switch)
        for switch in (False, True)
    )
    for ours, theirs in zip(folded(images), plain(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert folded.head(folded(images).embeddings).shape == (4, 5)
    assert len(teacher.classifier[1]._forward_pre_hooks) == 1


def test_folding_that_cannot_be_is_refused_at_the_first_step(tmp_path):
    with pytest.raises(ValueError, match="`fold_teacher` is True, but ViTForImageClassification has no batch"):
        _distill(tmp_path, vit(hidden_size=64, seed=3), fold_teacher=True)
