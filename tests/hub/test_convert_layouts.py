"""The network of a checkpoint is found by its tensors."""

import json

import pytest
import torch
from golden_data import golden_path

from headshare_hf.hub import convert_layouts
from headshare_hf.hub.convert_layouts import infer_layout
from headshare_hf.models import backbone_names
from headshare_hf.models.backbone_shapes import backbone_shapes
from headshare_hf.models.backbones import create_backbone


def _reference():
    return json.loads(golden_path("architectures.json").read_text())


def _faces():
    return json.loads(golden_path("face/architectures.json").read_text())


def _meta(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _body(name, *fields):
    with torch.device("meta"):
        return create_backbone(name, *fields).state_dict()


@pytest.mark.parametrize("name", _reference())
def test_the_networks_of_the_reference(name):
    weights = _meta(_reference()[name]["state_dict"])
    layout = infer_layout(weights)
    assert (layout.backbone, layout.num_labels, layout.num_channels) == (name, 100, 3)
    assert layout.image_size is layout.embedding_size is None
    assert {f"{layout.classifier}.weight", f"{layout.classifier}.bias"} <= weights.keys()


@pytest.mark.parametrize("name", _faces())
def test_the_face_networks(name):
    layout = infer_layout(_meta(_faces()[name]["state_dict"]))
    size = [112, 96] if name == "mobilefacenet_112x96" else [112, 112]
    assert (layout.backbone, layout.image_size, layout.classifier) == (name, size, None)
    assert layout.embedding_size == (128 if name == "mobilefacenet_112x96" else 512)


def test_every_backbone_is_tried():
    assert {*_reference(), *_faces()} == set(backbone_names())


@pytest.mark.parametrize("name", ["mobilefacenet", "mobilefacenet_112x96", "iresnet18"])
def test_channels_size_and_width_are_read_off(name):
    layout = infer_layout(_body(name, 1, [64, 64], 96))
    assert (layout.backbone, layout.num_channels, layout.image_size, layout.embedding_size) == (name, 1, [64, 64], 96)
    # 50 pixels leave the same map.
    assert infer_layout(_body(name, 1, [64, 50], 96), image_size=[64, 50]).image_size == [64, 50]


def test_channels_of_a_network_of_timm_are_read_off():
    name = "timm/test_resnet"
    stem = next(key for key, shape in backbone_shapes(name).items() if len(shape) == 4)
    weights = {stem.removeprefix("model.timm_model."): torch.empty(8, 1, 3, 3, device="meta")}
    assert infer_layout(weights, name).num_channels == 1


def test_a_linear_layer_does_not_tell_height_and_width():
    weights = _body("iresnet18", 3, [112, 96], 512)
    with pytest.raises(
        ValueError, match=r"nearest, iresnet18, differs in fc.weight \(\(512, 21504\) instead of \(512, 18432"
    ):
        infer_layout(weights)
    assert infer_layout(weights, image_size=[112, 96]).backbone == "iresnet18"


def test_what_the_nearest_network_lacks_is_named():
    weights = _meta(_reference()["resnet20"]["state_dict"])
    without = {name: tensor for name, tensor in weights.items() if name != "layer2.1.bn1.bias"}
    with pytest.raises(ValueError, match=r"nearest, resnet20, differs in layer2.1.bn1.bias \(missing\)\."):
        infer_layout(without)
    with pytest.raises(ValueError, match=r"nearest, resnet20, differs in stranger \(unknown\)\."):
        infer_layout({**weights, "stranger": torch.ones(1)})
    with pytest.raises(ValueError, match=r"nearest, resnet20, differs in bn1.bias \(\(17,\) instead of \(16,\)\)\."):
        infer_layout({**weights, "bn1.bias": torch.ones(17)})
    with pytest.raises(
        ValueError, match=r"fit none of resnet8, .*iresnet100. For timm's networks give `backbone` timm"
    ):
        infer_layout({"stranger": torch.ones(1), "other": torch.ones(1)})


def test_several_matches_are_listed(monkeypatch):
    shapes = convert_layouts.backbone_shapes
    monkeypatch.setattr(
        convert_layouts, "backbone_shapes", lambda name, *fields: shapes(name.replace("14", "8"), *fields)
    )
    with pytest.raises(ValueError, match=r"fit several networks: resnet8, resnet14; say which one with `backbone`"):
        infer_layout(_meta(_reference()["resnet8"]["state_dict"]))
