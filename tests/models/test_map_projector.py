"""The projector in front of a classifier that reads another network's last map."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError

from headshare_hf import HeadShareConfig, HeadShareForImageClassification, HeadShareModel
from headshare_hf.models.map_projector import MapProjector


# One of each family that averages its last map.
POOLING = ["resnet8", "ResNet50", "wrn_16_1", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2"]


def test_projector_is_a_bottleneck():
    projector = MapProjector(in_channels=6, out_channels=8, reduction=4)
    found = projector(torch.randn(2, 6, 5, 5))
    assert found.shape == (2, 8, 5, 5) and found.min() >= 0
    weights = [tuple(each.weight.shape) for each in projector.modules() if isinstance(each, torch.nn.Conv2d)]
    assert weights == [(2, 6, 1, 1), (2, 2, 3, 3), (8, 2, 1, 1)]
    # Convolutions without bias, and two numbers a channel for each normalisation.
    assert sum(p.numel() for p in projector.parameters()) == 12 + 36 + 16 + 2 * (2 + 2 + 8)


def test_a_larger_map_is_averaged_down_to_the_size_of_the_teacher_first():
    maps = torch.randn(2, 6, 8, 8)
    projector = MapProjector(6, 8, size=(4, 4)).eval()
    pooled = torch.nn.functional.avg_pool2d(maps, 2)
    torch.testing.assert_close(projector(maps), projector.layers(pooled))
    assert projector(maps[:, :, :3]).shape == (2, 8, 3, 4)


@pytest.mark.parametrize("reduction", [0, 9])
def test_a_reduction_that_leaves_no_channel_is_refused(reduction):
    with pytest.raises(ValueError, match=f"`reduction` is {reduction}; it must be between 1 and `out_channels`, 8"):
        MapProjector(6, 8, reduction)


def build(backbone="resnet8", out_channels=24, **fields):
    torch.manual_seed(0)
    return HeadShareForImageClassification(
        HeadShareConfig(backbone=backbone, num_labels=5, map_projector={"out_channels": out_channels, **fields})
    )


@pytest.mark.parametrize("backbone", POOLING)
def test_final_map_of_a_backbone_is_what_its_embedding_is_the_mean_of(backbone):
    torch.manual_seed(0)
    model = HeadShareModel(HeadShareConfig(backbone=backbone)).eval()
    output = model(torch.randn(2, 3, 32, 32), output_hidden_states=True)
    torch.testing.assert_close(output.final_map.mean(dim=(2, 3)), output.embeddings, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backbone", POOLING)
def test_embedding_of_a_model_with_projector_is_the_mean_of_the_projected_map(backbone):
    model, images = build(backbone).eval(), torch.randn(2, 3, 32, 32)
    plain = model(images)
    assert plain.hidden_states is None and plain.final_map is None
    output = model(images, output_hidden_states=True)
    projected = model.headshare.map_projector(model.headshare.backbone(images).final_map)
    torch.testing.assert_close(output.final_map, projected)
    assert output.hidden_states[-1] is output.final_map and torch.equal(output.pre_activations[-1].relu(), projected)
    torch.testing.assert_close(output.embeddings, projected.mean(dim=(2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(plain.logits, model.classifier(output.embeddings))
    assert model.classifier.in_features == 24


def test_every_parameter_learns():
    model = build("wrn_16_1").train()
    model(torch.randn(4, 3, 16, 16), torch.arange(4)).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_model_with_projector_is_loaded_as_it_was_saved(tmp_path):
    model, images = build(size=[4, 4]).eval(), torch.randn(2, 3, 32, 32)
    model.save_pretrained(tmp_path)
    loaded = HeadShareForImageClassification.from_pretrained(tmp_path)
    assert loaded.config.map_projector == {"out_channels": 24, "size": [4, 4]}
    torch.testing.assert_close(loaded(images).logits, model(images).logits, rtol=0, atol=0)
    assert (tmp_path / "map_projector.py").is_file()
    bare = HeadShareModel.from_pretrained(tmp_path)
    torch.testing.assert_close(bare(images).embeddings, model(images).embeddings, rtol=0, atol=0)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"map_projector": {}}, r"`map_projector` is \{\}; it needs `out_channels`, a positive integer"),
        ({"map_projector": {"out_channels": 0}}, "it needs `out_channels`, a positive integer"),
        ({"map_projector": {"out_channels": 8, "reductoin": 2}}, "may have `reduction` and `size`"),
        ({"map_projector": {"out_channels": 8, "size": [4]}}, r"`size` of `map_projector` is \[4\]; it must be"),
        ({"map_projector": {"out_channels": 8}, "embedding_size": 9}, "width 8; leave out `projector` and `embedding"),
        ({"map_projectr": {"out_channels": 8}}, "no field `map_projectr`; did you mean `map_projector`"),
    ],
)
def test_wrong_configurations_name_the_field(fields, message):
    with pytest.raises((ValueError, StrictDataclassClassValidationError), match=message):
        HeadShareConfig(**fields)


@pytest.mark.parametrize("backbone", ["mobilefacenet", "timm/test_resnet"])
def test_backbones_without_a_map_that_is_averaged_are_refused(backbone):
    with pytest.raises(ValueError, match=f"averages its last map over all positions, and {backbone} does not, or"):
        build(backbone)
