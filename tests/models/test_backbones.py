"""Backbones against the stored architectures and outputs of HeadSharingKD, and what all of them promise."""

import json

import pytest
import torch
from golden_data import golden_path, load_golden
from torch import nn
from torch.nn import functional as F
from transformers import initialization

from headshare_hf.models import HeadShareConfig, HeadShareModel, backbone_names
from headshare_hf.models.backbone import Backbone
from headshare_hf.models.backbone_staged import StagedBackbone
from headshare_hf.models.backbones import BACKBONES, check_backbone_name, create_backbone


ARCHITECTURES = json.loads(golden_path("architectures.json").read_text())
NAMES = list(ARCHITECTURES)
# Those of the face networks are tested in test_backbones_face.py.
FACES = list(json.loads(golden_path("face/architectures.json").read_text()))
ONE_OF_EACH = ["resnet8", "resnet8x4", "ResNet50", "wrn_16_2", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2"]
STORED = {"resnet8": "fc", "resnet20": "fc", "resnet8x4": "fc", "wrn_16_1": "fc", "MobileNetV2": "classifier.0"}


def _meta(name, **kwargs):
    with torch.device("meta"):
        return create_backbone(name, **kwargs)


def _batch(size, channels=3, batch_size=2):
    return torch.randn(batch_size, channels, size, size)


def test_table_has_the_networks_of_the_reference():
    assert backbone_names() == NAMES + FACES == list(BACKBONES)
    assert (len(NAMES), len(FACES)) == (22, 7)


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_of_all_tensors(name):
    stored = ARCHITECTURES[name]
    backbone = _meta(name)
    expected = {k: s for k, s in stored["state_dict"].items() if not k.startswith(stored["classifier"] + ".")}
    assert {k: list(t.shape) for k, t in backbone.state_dict().items()} == expected
    classifier = 100 * (backbone.num_features + 1)
    assert sum(p.numel() for p in backbone.parameters()) + classifier == stored["parameters"]


@pytest.mark.parametrize("name", NAMES)
def test_shapes_of_features_at_32_pixels(name):
    *maps, embedding = ARCHITECTURES[name]["feature_shapes"]
    backbone = _meta(name)
    output = backbone(_batch(32).to("meta"), output_hidden_states=True)
    assert [list(t.shape[1:]) for t in output.hidden_states] == maps
    assert [list(t.shape[1:]) for t in output.pre_activations] == maps
    assert list(output.embeddings.shape[1:]) == embedding == [backbone.num_features]


@pytest.mark.parametrize("name", STORED)
def test_outputs_equal_the_stored_ones(name):
    golden = load_golden(f"model_{name}")
    weights = {k.removeprefix("state_dict."): t for k, t in golden.items() if k.startswith("state_dict.")}
    classifier = {k: weights.pop(f"{STORED[name]}.{k}") for k in ("weight", "bias")}
    backbone = create_backbone(name).eval()
    backbone.load_state_dict(weights, strict=True)
    # In float64, so that what is off is the rounding of the stored ones alone, whatever the processor: 8e-7 of the largest value.
    backbone, classifier = backbone.double(), {k: tensor.double() for k, tensor in classifier.items()}
    with torch.no_grad():
        output = backbone(golden["input"].double(), output_hidden_states=True)
    found = {f"feature.{i}": t for i, t in enumerate([*output.hidden_states, output.embeddings])}
    found |= {f"preact.{i}": t for i, t in enumerate(output.pre_activations)}
    found["logits"] = F.linear(output.embeddings, **classifier)
    for key in [k for k in golden if k.startswith(("feature.", "preact.", "logits"))]:
        assert (found[key] - golden[key]).abs().max() <= 2e-6 * golden[key].abs().max(), key
    for i, pre_activation in enumerate(output.pre_activations):
        if f"feature.{i}" in golden and f"preact.{i}" not in golden:
            assert torch.equal(pre_activation, output.hidden_states[i]), f"stage {i} ends without an activation"


@pytest.mark.parametrize("name", ["resnet8", "vgg8", "ShuffleV1"])
def test_stages_end_in_a_relu_that_leaves_the_pre_activation_alone(name):
    output = create_backbone(name)(_batch(16), output_hidden_states=True)
    for hidden, pre in list(zip(output.hidden_states, output.pre_activations, strict=True))[1:]:
        assert pre.min() < 0
        assert torch.equal(hidden, F.relu(pre))


def test_shuffle_v2_pre_activations_are_unshuffled():
    output = create_backbone("ShuffleV2")(_batch(16), output_hidden_states=True)
    for hidden, pre in list(zip(output.hidden_states, output.pre_activations, strict=True))[1:]:
        passed, transformed = pre.chunk(2, dim=1)
        assert transformed.min() < 0
        assert torch.equal(hidden[:, 0::2], passed)
        assert torch.equal(hidden[:, 1::2], F.relu(transformed))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_asking_for_hidden_states_changes_no_embedding_and_no_statistic(name):
    asked, plain = create_backbone(name), create_backbone(name)
    plain.load_state_dict(asked.state_dict())
    images = _batch(16)
    output = asked(images, output_hidden_states=True)
    only_embeddings = plain(images)
    assert only_embeddings.hidden_states is None and only_embeddings.pre_activations is None
    assert torch.equal(output.embeddings, only_embeddings.embeddings)
    for key, tensor in plain.state_dict().items():
        assert torch.equal(asked.state_dict()[key], tensor), key
        assert "num_batches" not in key or tensor == 1, key


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_returned_maps_can_be_trained_on(name):
    """Backward fails if an activation in place has overwritten what another layer needs."""
    backbone = create_backbone(name)
    output = backbone(_batch(16), output_hidden_states=True)
    sum(t.square().mean() for t in (*output.hidden_states, *output.pre_activations)).backward()
    assert all(torch.isfinite(p.grad).all() for p in backbone.parameters() if p.grad is not None)
    assert next(backbone.parameters()).grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_parameter(name):
    # In eval mode: batch statistics would cancel the gradient of a bias before a normalisation.
    backbone = create_backbone(name).eval()
    backbone(_batch(16)).embeddings.square().sum().backward()
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_other_sizes(name):
    backbone = _meta(name)
    small = backbone(_batch(32).to("meta"), output_hidden_states=True)
    large = backbone(torch.empty(2, 3, 64, 96, device="meta"), output_hidden_states=True)
    assert large.embeddings.shape == small.embeddings.shape
    pooled_again = 1 if name.startswith("vgg") else 0
    for at_64, at_32 in list(zip(large.hidden_states, small.hidden_states, strict=True))[: -pooled_again or None]:
        assert at_64.shape[2:] == (2 * at_32.shape[2], 3 * at_32.shape[3])


@pytest.mark.parametrize(("size", "left"), [(8, 1), (32, 4), (48, 6), (63, 7), (64, 4), (96, 6)])
def test_vgg_pools_once_more_from_64_pixels(size, left):
    maps = _meta("vgg8")(_batch(size).to("meta"), output_hidden_states=True).hidden_states
    assert maps[4].shape[2:] == (left, left)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_other_number_of_channels(name):
    assert _meta(name, num_channels=1)(_batch(32, channels=1).to("meta")).embeddings.shape[0] == 2
    with pytest.raises(ValueError, match=r"shape \(batch_size, 1, height, width\).*got \(2, 3, 32, 32\)"):
        _meta(name, num_channels=1)(_batch(32).to("meta"))


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("resnet8", 4),
        ("ResNet50", 8),
        ("wrn_16_1", 4),
        ("vgg8", 8),
        ("MobileNetV2", 16),
        ("ShuffleV1", 8),
        ("ShuffleV2", 8),
    ],
)
def test_too_small_images(name, least):
    backbone = create_backbone(name).eval()
    output = backbone(_batch(least), output_hidden_states=True)
    assert output.hidden_states[-1].shape[2:] == (1, 1)
    with pytest.raises(ValueError, match=rf"at least {least}, got \(2, 3, {least}, {least - 1}\)"):
        backbone(torch.zeros(2, 3, least, least - 1))
    with pytest.raises(ValueError, match=rf"at least {least}, got \(3, 32, 32\)"):
        backbone(torch.zeros(3, 32, 32))


def _poisoned(backbone):
    backbone.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in [*backbone.parameters(), *backbone.buffers()]:
            tensor.fill_(float("nan") if tensor.is_floating_point() else 99)
    return backbone


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_reset_parameters_fills_a_network_from_the_meta_device(name):
    backbone = _poisoned(_meta(name))
    backbone.reset_parameters()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all() and module.bias.eq(0).all()
            assert module.running_mean.eq(0).all() and module.running_var.eq(1).all()
            assert module.num_batches_tracked == 0
        elif isinstance(module, nn.Conv2d):
            assert module.bias is None or module.bias.eq(0).all()
    assert backbone.eval()(_batch(16)).embeddings.isfinite().all()


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_initial_weights_have_the_published_spread(name):
    for key, module in create_backbone(name).named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            fan_in = module.weight[0].numel()
            expected = (3 * fan_in) ** -0.5 if name.startswith("Shuffle") else (2 / fan_out) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05), key


@pytest.mark.parametrize("name", [*ONE_OF_EACH, "timm/vit_tiny_patch16_224"])
def test_reset_parameters_leaves_what_from_pretrained_has_read(name):
    backbone = create_backbone(name)
    with torch.no_grad():
        for tensor in backbone.state_dict(keep_vars=True).values():
            tensor.add_(2)
            tensor._is_hf_initialized = True
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    with initialization.guard_torch_init_functions():
        backbone.reset_parameters()
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[key]), key


def test_drop_rate_of_a_wrn():
    backbone, images = create_backbone("wrn_16_1", drop_rate=0.5), _batch(16)
    assert not torch.equal(backbone(images).embeddings, backbone(images).embeddings)
    backbone.eval()
    assert torch.equal(backbone(images).embeddings, backbone(images).embeddings)
    assert backbone.state_dict().keys() == create_backbone("wrn_16_1").state_dict().keys()
    with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1, but got 1.5"):
        create_backbone("wrn_16_1", drop_rate=1.5)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("resnet8x5", "resnet8x4"), ("mobilenetv2", "MobileNetV2"), ("timm/resnet18x", "timm/resnet18"), ("??", "none")],
)
@pytest.mark.parametrize("function", [check_backbone_name, create_backbone])
def test_unknown_name(function, name, nearest):
    with pytest.raises(ValueError) as raised:
        function(name)
    message = str(raised.value)
    assert message.startswith(f"unknown backbone {name!r}; nearest: ")
    nearest_given, families = message.split("; nearest: ")[1].split("; all: ")
    assert nearest in nearest_given.split(", ")
    assert families == ", ".join(NAMES + FACES) + ", timm/<name of a timm model>"


@pytest.mark.parametrize("name", [*NAMES, *FACES, "timm/vit_tiny_patch16_224", "timm/resnet18.a1_in1k"])
def test_known_name(name):
    check_backbone_name(name)


@pytest.mark.parametrize("name", ["timm/hf-hub:someone/model", "timm/local-dir:folder", "timm/", "resnet18", ""])
def test_only_architectures_are_names(name):
    with pytest.raises(ValueError, match="unknown backbone"):
        check_backbone_name(name)


@pytest.mark.parametrize(
    ("name", "keyword", "allowed"),
    [("resnet8", "drop_rate", "none"), ("wrn_16_1", "dropRate", "drop_rate"), ("wrn_16_1", "depth", "drop_rate")],
)
def test_unknown_keyword(name, keyword, allowed):
    with pytest.raises(ValueError, match=rf"{name} does not take the keyword {keyword} .*; allowed: {allowed}$"):
        create_backbone(name, **{keyword: 1})


@pytest.mark.parametrize("name", ["resnet8", "ShuffleV2"])
def test_from_pretrained_restores_everything(name, tmp_path):
    model = HeadShareModel(HeadShareConfig(backbone=name)).eval()
    images = _batch(32)
    model.train()(images)
    model.save_pretrained(tmp_path)
    loaded = HeadShareModel.from_pretrained(tmp_path)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key]), key


def test_base_classes_ask_for_their_methods():
    with pytest.raises(NotImplementedError, match="Backbone does not implement forward"):
        Backbone()(_batch(32))
    with pytest.raises(NotImplementedError, match="Backbone does not implement reset_parameters"):
        Backbone().reset_parameters()
    staged = StagedBackbone(num_channels=3)
    staged.min_size = 1
    with pytest.raises(NotImplementedError, match="StagedBackbone does not implement forward_stages"):
        staged(_batch(32))
