"""Weights in other layouts become ours, every tensor accounted for."""

import json

import pytest
import torch
from golden_data import drawn_images, drawn_weights, golden_path, load_golden

from headshare_hf import HeadShareConfig, HeadShareForImageClassification, HeadShareModel
from headshare_hf.hub import convert_backbone_state_dict, convert_state_dict


NETS = {"resnet8": "fc", "resnet20": "fc", "resnet8x4": "fc", "wrn_16_1": "fc", "MobileNetV2": "classifier.0"}
FACES = {"mobilefacenet": 112, "mobilefacenet_112x96": [112, 96], "iresnet18": 112}


def _stored(name):
    golden = load_golden(f"model_{name}")
    weights = {k.removeprefix("state_dict."): v for k, v in golden.items() if k.startswith("state_dict.")}
    return golden, weights, HeadShareConfig(backbone=name, num_labels=20)


@pytest.mark.parametrize("name", NETS)
def test_converted_weights_give_the_logits_of_the_reference(name):
    golden, weights, config = _stored(name)
    model = HeadShareForImageClassification(config).eval()
    model.load_state_dict(convert_state_dict(weights, config))
    with torch.no_grad():
        output = model(golden["input"])
    torch.testing.assert_close(output.logits, golden["logits"], rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_named():
    _, weights, config = _stored("resnet8")
    without = {name: value for name, value in weights.items() if name != "layer1.0.bn1.bias"}
    with pytest.raises(ValueError, match="missing: headshare.backbone.layer1.0.bn1.bias"):
        convert_state_dict(without, config)
    assert len(convert_state_dict(without, config, partial=True)) == len(weights) - 1
    with pytest.raises(ValueError, match="unknown: stranger"):
        convert_state_dict({**weights, "stranger": torch.zeros(1)}, config)
    with pytest.raises(ValueError, match=r"classifier.weight is \(20, 32\) instead of \(20, 64\)"):
        convert_state_dict({**weights, "fc.weight": torch.zeros(20, 32)}, config)


def test_weights_of_another_network_are_recognized():
    _, weights, _ = _stored("resnet20")
    with pytest.raises(
        ValueError, match="not those of resnet8 for `image_size` 32 with 20 classes.*They look like resnet20"
    ):
        convert_state_dict(weights, HeadShareConfig(backbone="resnet8", num_labels=20))


def test_names_of_a_parallel_model():
    _, weights, config = _stored("resnet8")
    parallel = {f"module.{name}": tensor for name, tensor in weights.items()}
    converted = convert_state_dict(parallel, config)
    assert all(tensor is converted[name] for name, tensor in convert_state_dict(weights, config).items())
    mixed = {f"module.{name}" if name == "conv1.weight" else name: tensor for name, tensor in weights.items()}
    with pytest.raises(ValueError, match=r"unknown: module.conv1.weight; missing: headshare.backbone.conv1.weight\)"):
        convert_state_dict(mixed, config)


def _face(name):
    shapes = json.loads(golden_path("face/architectures.json").read_text())[name]["state_dict"]
    return drawn_weights(shapes), HeadShareConfig(backbone=name, image_size=FACES[name], num_labels=3)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", FACES)
def test_converted_face_networks_give_the_stored_embeddings(name, prefix):
    weights, config = _face(name)
    model = HeadShareModel(config).eval()
    model.load_state_dict(convert_backbone_state_dict({prefix + k: t for k, t in weights.items()}, config))
    size = FACES[name] if isinstance(FACES[name], list) else [FACES[name]] * 2
    with torch.no_grad():
        embeddings = model(drawn_images(*size)).embeddings
    torch.testing.assert_close(embeddings, load_golden("face/networks")[f"{name}.eval"], rtol=1e-4, atol=1e-4)


def test_a_face_network_starts_a_classifier():
    weights, config = _face("mobilefacenet_112x96")
    model = HeadShareForImageClassification(config)
    model.headshare.load_state_dict(convert_backbone_state_dict(weights, config))
    assert torch.equal(model.headshare.backbone.linear1.conv.weight, weights["linear1.conv.weight"])


def test_what_does_not_fit_a_face_network_is_named():
    weights, config = _face("mobilefacenet")
    without = {name: tensor for name, tensor in weights.items() if name != "conv_sep.layers.1.num_batches_tracked"}
    with pytest.raises(ValueError, match=r"\(missing: backbone.conv_sep.layers.1.num_batches_tracked\)$"):
        convert_backbone_state_dict(without, config)
    with pytest.raises(ValueError, match=r"unknown: backbone.weight\)$"):
        convert_backbone_state_dict({**weights, "weight": torch.zeros(3, 512)}, config)
    smaller = HeadShareConfig(backbone="mobilefacenet", image_size=64)
    with pytest.raises(
        ValueError, match=r"mobilefacenet for `image_size` 64 .*\(512, 1, 7, 7\) instead of \(512, 1, 4, 4\)"
    ):
        convert_backbone_state_dict(weights, smaller)
    other = HeadShareConfig(backbone="iresnet18", image_size=112)
    with pytest.raises(ValueError, match="not those of iresnet18 .*They look like mobilefacenet$"):
        convert_backbone_state_dict(weights, other)


def test_two_tensors_that_get_one_name_are_refused():
    _, weights, config = _stored("resnet8")
    two = {**weights, "linear.weight": torch.ones(20, 64), "linear.bias": torch.ones(20)}
    with pytest.raises(ValueError, match=r"fc.weight and linear.weight both become classifier.weight; leave the one"):
        convert_state_dict(two, config)
    names = {"conv_6_sep.conv.weight": torch.ones(1), "layers.0.layers.0.weight": torch.ones(1)}
    both = {**names, "conv1.conv.weight": torch.ones(1)}
    with pytest.raises(
        ValueError, match=r"layers.0.layers.0.weight and conv1.conv.weight both become layers.0.layers"
    ):
        convert_backbone_state_dict(both, HeadShareConfig(backbone="mobilefacenet_1x", image_size=112))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value):
    _, weights, config = _stored("resnet8")
    weights["layer1.0.bn1.bias"] = torch.full_like(weights["layer1.0.bn1.bias"], value)
    with pytest.raises(ValueError, match="NaN or infinite values in layer1.0.bn1.bias; .* take an earlier checkpoint"):
        convert_state_dict(weights, config)
    with torch.device("cpu"):
        face = HeadShareModel(HeadShareConfig(backbone="mobilefacenet_112x96", image_size=[112, 96]))
    weights = {name.removeprefix("backbone."): tensor for name, tensor in face.state_dict().items()}
    weights["conv1.conv.weight"] = torch.full_like(weights["conv1.conv.weight"], value)
    with pytest.raises(ValueError, match="NaN or infinite values in conv1.conv.weight"):
        convert_backbone_state_dict(weights, face.config)
