"""timm models as backbones: width, initialisation, what is in no checkpoint, and the arguments that are refused."""

import pytest
import timm
import torch
from transformers import initialization

from headshare_hf.models import HeadShareConfig, HeadShareModel
from headshare_hf.models.backbones import create_backbone


TINY_SWIN = {"embed_dim": 24, "depths": [1, 1], "num_heads": [1, 2], "img_size": 56}
TIMM = {
    "timm/mobilenetv3_small_050": ({}, 64, 1024, 5),
    "timm/vit_tiny_patch16_224": ({"img_size": 32, "depth": 2}, 32, 192, 2),
    "timm/swin_tiny_patch4_window7_224": (TINY_SWIN, 56, 48, 2),
}


def _batch(size, channels=3):
    return torch.randn(2, channels, size, size)


@pytest.mark.parametrize("name", TIMM)
def test_timm_backbone(name):
    kwargs, size, width, maps = TIMM[name]
    backbone, images = create_backbone(name, **kwargs).eval(), _batch(size)
    output = backbone(images, output_hidden_states=True)
    assert output.embeddings.shape == (2, width) and backbone.num_features == width
    assert len(output.hidden_states) == maps and all(m.ndim == 4 for m in output.hidden_states)
    assert output.pre_activations is output.hidden_states
    embeddings = backbone(images).embeddings
    torch.testing.assert_close(embeddings, output.embeddings)
    embeddings.square().sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


@pytest.mark.parametrize("name", TIMM)
def test_timm_weights_are_drawn_as_timm_draws_them(name):
    kwargs = TIMM[name][0]
    torch.manual_seed(1)
    expected = timm.create_model(name.removeprefix("timm/"), num_classes=0, **kwargs).state_dict()
    torch.manual_seed(1)
    config = HeadShareConfig(backbone=name, backbone_kwargs=kwargs)
    found = HeadShareModel(config).backbone.model.timm_model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", TIMM)
def test_timm_reset_parameters_fills_a_network_from_the_meta_device(name):
    kwargs, size = TIMM[name][:2]
    with initialization.meta_device_safe_creation_ops(), torch.device("meta"):
        backbone = create_backbone(name, **kwargs)
    backbone.to_empty(device="cpu")
    torch.manual_seed(1)
    backbone.reset_parameters()
    torch.manual_seed(1)
    expected = create_backbone(name, **kwargs)
    assert backbone.eval()(_batch(size)).embeddings.isfinite().all()
    for (key, found), other in zip(backbone.named_buffers(), expected.buffers(), strict=True):
        assert torch.equal(found, other), key
    assert all(torch.equal(p, q) for p, q in zip(backbone.parameters(), expected.parameters(), strict=True))


def test_timm_channels_and_sizes():
    backbone = create_backbone("timm/vit_tiny_patch16_224", num_channels=1, img_size=32, depth=1)
    assert backbone(_batch(32, channels=1)).embeddings.shape == (2, 192)
    with pytest.raises(ValueError, match=r"shape \(batch_size, 1, height, width\).*got \(2, 3, 32, 32\)"):
        backbone(_batch(32))
    with pytest.raises(ValueError, match=r"images of \(32, 32\) pixels, got \(48, 48\).*`img_size`"):
        backbone(_batch(48, channels=1))


def test_timm_without_pooling():
    backbone = create_backbone("timm/mobilenetv3_small_050", global_pool="")
    with pytest.raises(ValueError, match=r"returns \(2, 1024, 1, 1\) instead of one vector per image.*`global_pool`"):
        backbone(_batch(32))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"no_such_option": 1}, "timm cannot build resnet18 .*'no_such_option'"),
        ({"num_classes": 5}, "timm/resnet18 does not take the keyword num_classes"),
        ({"features_only": True, "pretrained": True}, "does not take the keyword features_only, pretrained"),
    ],
)
def test_timm_refuses_keywords(kwargs, message):
    with pytest.raises(ValueError, match=message):
        create_backbone("timm/resnet18", **kwargs)


def test_timm_refuses_an_unknown_tag():
    with pytest.raises(ValueError, match="timm cannot build resnet18.no_such_tag .*no_such_tag"):
        create_backbone("timm/resnet18.no_such_tag")


@pytest.mark.parametrize("name", TIMM)
def test_from_pretrained_restores_everything(name, tmp_path):
    """Tables that are in no checkpoint included: `from_pretrained` builds the network on the meta device."""
    kwargs, size = TIMM[name][:2]
    model = HeadShareModel(HeadShareConfig(backbone=name, backbone_kwargs=kwargs)).eval()
    model.save_pretrained(tmp_path)
    loaded = HeadShareModel.from_pretrained(tmp_path).eval()
    for (key, tensor), other in zip(model.named_buffers(), loaded.buffers(), strict=True):
        assert torch.equal(tensor, other), key
    images = _batch(size)
    torch.testing.assert_close(loaded(images).embeddings, model(images).embeddings)
