"""The face networks against insightface and a plain PyTorch MobileFaceNet, and what all of them promise."""

import json

import pytest
import torch
from golden_data import drawn_images, drawn_weights, golden_path, load_golden
from torch import nn
from torch.nn import functional as F
from transformers import initialization

from headshare_hf.models import HeadShareConfig, HeadShareForImageClassification, HeadShareModel
from headshare_hf.models.backbone_face import FaceBackbone, height_and_width
from headshare_hf.models.backbones import create_backbone


ARCHITECTURES = json.loads(golden_path("face/architectures.json").read_text())
NAMES = list(ARCHITECTURES)
# Of every layout one; the deeper IResNets only have more blocks.
ONE_OF_EACH = ["mobilefacenet", "mobilefacenet_1x", "mobilefacenet_112x96", "iresnet18"]
SIZES = {name: (112, 96) if name == "mobilefacenet_112x96" else (112, 112) for name in NAMES}
WIDTHS = {"mobilefacenet_1x": 128}
FROZEN = {"iresnet18": ["features.weight"]}
MAPS = {
    "mobilefacenet": [(128, 2), (128, 4), (256, 8), (256, 16), (512, 16)],
    "mobilefacenet_1x": [(64, 2), (64, 4), (128, 8), (128, 16), (512, 16)],
    "mobilefacenet_112x96": [(64, 2), (64, 4), (128, 8), (128, 16), (512, 16)],
    "iresnet18": [(64, 1), (64, 2), (128, 4), (256, 8), (512, 16)],
}
# Which maps are those around a PReLU, and its name.
ACTIVATED = {
    "mobilefacenet": {0: "layers.1.layers.2", 4: "conv_sep.layers.2"},
    "mobilefacenet_1x": {0: "layers.1.layers.2", 4: "conv_sep.layers.2"},
    "mobilefacenet_112x96": {0: "dw_conv1.prelu", 4: "conv2.prelu"},
    "iresnet18": {0: "prelu"},
}


def _meta(name, **kwargs):
    with torch.device("meta"):
        return create_backbone(name, **kwargs)


def _small(name, **kwargs):
    """A network for 32-pixel images with eight features."""
    torch.manual_seed(0)
    return create_backbone(name, image_size=32, embedding_size=8, **kwargs)


def _batch(size=32):
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_of_all_tensors(name):
    backbone = _meta(name)
    stored = ARCHITECTURES[name]
    assert {key: list(tensor.shape) for key, tensor in backbone.state_dict().items()} == stored["state_dict"]
    assert sum(parameter.numel() for parameter in backbone.parameters()) == stored["parameters"]
    assert backbone.image_size == SIZES[name]


def test_published_sizes():
    assert ARCHITECTURES["mobilefacenet"]["parameters"] == 2_059_520
    assert _meta("mobilefacenet").num_features == _meta("iresnet18").num_features == 512
    assert _meta("mobilefacenet_112x96").num_features == 128


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_outputs_equal_the_stored_ones(name):
    stored = {key.removeprefix(f"{name}."): t for key, t in load_golden("face/networks").items() if f"{name}." in key}
    backbone = create_backbone(name, embedding_size=WIDTHS.get(name))
    backbone.load_state_dict(drawn_weights({key: tuple(t.shape) for key, t in backbone.state_dict().items()}))
    images = drawn_images(*SIZES[name])
    with torch.no_grad():
        evaluated = backbone.eval()(images).embeddings
        trained = backbone.train()(images).embeddings
    torch.testing.assert_close(evaluated, stored["eval"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(trained, stored["train"], rtol=1e-4, atol=1e-4)
    last = [key for key in backbone.state_dict() if key.endswith("running_var")][-1]
    torch.testing.assert_close(backbone.state_dict()[last], stored["running_var"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [32, 48, 56, 64, [33, 50]])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_shapes_at_other_sizes(name, size):
    height, width = height_and_width(size)
    output = _meta(name, image_size=size)(torch.empty(2, 3, height, width, device="meta"), output_hidden_states=True)
    expected = [(2, channels, -(-height // stride), -(-width // stride)) for channels, stride in MAPS[name]]
    assert [tuple(t.shape) for t in output.hidden_states] == expected
    assert [tuple(t.shape) for t in output.pre_activations] == expected
    assert output.embeddings.shape == (2, 128 if name == "mobilefacenet_112x96" else 512)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_maps_are_those_around_the_last_activation(name):
    backbone = _small(name)
    for module in backbone.modules():
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, 0, 1)
    output = backbone(_batch(), output_hidden_states=True)
    for index, (hidden, pre) in enumerate(zip(output.hidden_states, output.pre_activations, strict=True)):
        if index in ACTIVATED[name]:
            slope = backbone.get_submodule(ACTIVATED[name][index]).weight
            assert pre.min() < 0
            assert torch.equal(hidden, F.prelu(pre, slope))
        else:
            assert torch.equal(hidden, pre)
    sum(t.square().mean() for t in (*output.hidden_states, *output.pre_activations)).backward()
    backbone.load_state_dict(_small(name).state_dict())
    asked, plain = backbone(_batch(), output_hidden_states=True), backbone(_batch())
    assert plain.hidden_states is None and plain.pre_activations is None
    assert torch.equal(asked.embeddings, plain.embeddings)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_wrong_sizes_name_both(name):
    backbone = _small(name)
    with pytest.raises(
        ValueError, match=r"images are 48x32 pixels .* was built for 32x32; .* `image_size` \[48, 32\]"
    ):
        backbone(torch.zeros(2, 3, 48, 32))
    with pytest.raises(ValueError, match=r"shape \(batch_size, 3, height, width\).*got \(2, 1, 32, 32\)"):
        backbone(torch.zeros(2, 1, 32, 32))


@pytest.mark.parametrize("size", [0, [32, 0], [32], [32, 32, 3]])
def test_image_size_is_one_or_two_positive_numbers(size):
    with pytest.raises(ValueError, match="`image_size` is .*; it must be at least 1, or .height, width."):
        create_backbone("iresnet18", image_size=size)
    with pytest.raises(Exception, match="`image_size` is .*; it must be at least 1, or .height, width."):
        HeadShareConfig(image_size=size)


def test_num_features_must_be_positive():
    with pytest.raises(ValueError, match="`num_features` is 0; it must be at least 1"):
        create_backbone("mobilefacenet", embedding_size=0)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_training_step_moves_everything_but_what_is_frozen(name):
    backbone = _small(name)
    before = {key: parameter.detach().clone() for key, parameter in backbone.named_parameters()}
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    target = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    (backbone(_batch()).embeddings - target).pow(3).sum().backward()
    optimizer.step()
    moved = {key for key, parameter in backbone.named_parameters() if not torch.equal(parameter, before[key])}
    frozen = FROZEN.get(name, [])
    # A bias before a normalisation in train mode has no effect on the output.
    without_effect = {"fc.bias"}
    assert before.keys() - moved - without_effect == set(frozen)
    assert [key for key, parameter in backbone.named_parameters() if not parameter.requires_grad] == frozen


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_autocast_leaves_the_embedding_in_float32(name):
    backbone, images = _small(name).eval(), _batch()
    with torch.autocast("cpu", torch.bfloat16):
        output = backbone(images, output_hidden_states=True)
    assert output.embeddings.dtype == torch.float32
    assert output.hidden_states[1].dtype == torch.bfloat16
    cosines = F.cosine_similarity(output.embeddings, backbone(images).embeddings)
    assert cosines.min() > 0.99


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_model_in_bfloat16_stays_in_it(name):
    backbone = _small(name).bfloat16().eval()
    assert backbone(_batch().bfloat16()).embeddings.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_channels_last_gives_the_same_embedding(name):
    backbone, images = _small(name).eval(), _batch()
    plain = backbone(images).embeddings
    backbone.to(memory_format=torch.channels_last)
    moved = backbone(images.to(memory_format=torch.channels_last)).embeddings
    torch.testing.assert_close(F.normalize(moved), F.normalize(plain), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_initial_weights_have_the_published_spread(name):
    for key, module in create_backbone(name, image_size=32).named_modules():
        if isinstance(module, nn.PReLU):
            assert module.weight.eq(0.25).all(), key
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert (
                module.weight.eq(1).all() and module.bias.eq(0).all() and (module.eps, module.momentum) == (1e-5, 0.1)
            )
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.weight.numel() > 5000:
            fan_out = module.weight.numel() / module.weight.shape[1]
            expected = (2 / fan_out) ** 0.5
            if name.startswith("iresnet"):
                expected = 0.1 if isinstance(module, nn.Conv2d) else (3 * module.in_features) ** -0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05), key


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_reset_parameters_fills_everything_and_leaves_what_was_read(name):
    backbone = _meta(name, image_size=32, embedding_size=8).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in [*backbone.parameters(), *backbone.buffers()]:
            tensor.fill_(float("nan") if tensor.is_floating_point() else 99)
    backbone.reset_parameters()
    assert all(t.isfinite().all() and (t.ndim or t == 0) for t in backbone.state_dict().values())
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    for tensor in backbone.state_dict(keep_vars=True).values():
        tensor._is_hf_initialized = True
    with initialization.guard_torch_init_functions():
        backbone.reset_parameters()
    assert all(torch.equal(tensor, before[key]) for key, tensor in backbone.state_dict().items())


def test_dropout_of_an_iresnet():
    backbone = _small("iresnet18", dropout=0.4)
    assert not torch.equal(backbone(_batch()).embeddings, backbone(_batch()).embeddings)
    with pytest.raises(ValueError, match=r"mobilefacenet does not take the keyword dropout .*; allowed: none$"):
        create_backbone("mobilefacenet", dropout=0.4)


@pytest.mark.parametrize("name", ["mobilefacenet_1x", "mobilefacenet_112x96", "iresnet18"])
def test_save_and_load_restore_everything(name, tmp_path):
    fields = {"image_size": [48, 32], "embedding_size": 8}
    model = HeadShareForImageClassification(HeadShareConfig(backbone=name, num_labels=3, **fields))
    images = torch.randn(2, 3, 48, 32)
    model(images)
    model.save_pretrained(tmp_path)
    loaded = HeadShareForImageClassification.from_pretrained(tmp_path)
    assert loaded.config.image_size == [48, 32] and loaded.classifier.in_features == 8
    assert torch.equal(loaded(images).logits, model.eval()(images).logits)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key]), key
    trainable = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    assert {key: parameter.requires_grad for key, parameter in loaded.named_parameters()} == trainable


def test_size_and_width_come_from_the_configuration():
    with torch.device("meta"):
        plain = HeadShareModel(HeadShareConfig(backbone="mobilefacenet", image_size=64, embedding_size=128))
        projected = HeadShareModel(
            HeadShareConfig(backbone="mobilefacenet", embedding_size=128, projector="linear", image_size=[112, 96])
        )
    assert (plain.backbone.image_size, plain.backbone.num_features, plain.projector) == ((64, 64), 128, None)
    assert (projected.backbone.image_size, projected.backbone.num_features) == ((112, 96), 512)
    assert projected.embedding_size == 128


@pytest.mark.parametrize("field", ["embedding_size", "image_size", "num_channels"])
def test_backbone_kwargs_repeat_no_field(field):
    with pytest.raises(Exception, match=f"`backbone_kwargs` has `{field}`, which is a field of its own"):
        HeadShareConfig(backbone="mobilefacenet", backbone_kwargs={field: 64})
    with pytest.raises(ValueError, match="iresnet18 does not take the keyword num_features .*; allowed: dropout"):
        HeadShareModel(HeadShareConfig(backbone="iresnet18", backbone_kwargs={"num_features": 64}))


def test_base_class_asks_for_embed():
    with pytest.raises(NotImplementedError, match="FaceBackbone does not implement embed"):
        FaceBackbone(3, 32, 8).embed(_batch())
