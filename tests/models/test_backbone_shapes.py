"""Backbones by the names and shapes of their tensors."""

import pytest
import torch

from headshare_hf import HeadShareConfig, HeadShareForImageClassification, HeadShareModel
from headshare_hf.models import backbone_names
from headshare_hf.models.backbone_shapes import BackboneFields, recognize_backbone


def _shapes(kind, **fields):
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in kind(HeadShareConfig(**fields)).state_dict().items()}


@pytest.mark.parametrize("name", backbone_names())
def test_every_backbone_is_recognized(name):
    size = [96, 80] if name.startswith("mobilefacenet") else 96
    found = recognize_backbone(_shapes(HeadShareModel, backbone=name, image_size=size))
    assert found is not None and found[0] == name
    faces = name.startswith(("mobilefacenet", "iresnet"))
    width = 128 if name == "mobilefacenet_112x96" else 512
    assert found[1] == (
        BackboneFields(3, (96, 80 if len(str(size)) > 2 else 96), width) if faces else BackboneFields()
    )


def test_a_classifier_and_a_projector_are_left_aside():
    fields = {"backbone": "resnet8", "num_channels": 1, "embedding_size": 16, "projector": "linear_bn_relu"}
    shapes = _shapes(HeadShareForImageClassification, **fields, head_type="adaface")
    assert recognize_backbone(shapes) == ("resnet8", BackboneFields(1))


def test_other_tensors_are_not_taken_for_a_backbone():
    shapes = _shapes(HeadShareModel, backbone="resnet8")
    assert recognize_backbone({}) is None and recognize_backbone({"backbone.x": torch.Size()}) is None
    assert recognize_backbone({**shapes, "backbone.x": torch.Size([1])}) is None
    shapes.popitem()
    assert recognize_backbone(shapes) is None
    assert recognize_backbone(_shapes(HeadShareModel, backbone="timm/test_resnet")) is None
