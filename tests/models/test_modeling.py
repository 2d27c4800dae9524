"""Configurations, models and processors as transformers users meet them."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from toys import assert_same, resnet, snapshot, vit
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline

from headshare_hf import HeadShareConfig, HeadShareForImageClassification, HeadShareImageProcessor, HeadShareModel


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"backbone": "resnet9"}, "unknown backbone 'resnet9'; nearest: resnet"),
        ({"backbone": "timm/resnet1888"}, "unknown backbone 'timm/resnet1888'; nearest: timm/resnet18"),
        ({"head_type": "arc"}, "`head_type` is 'arc'; allowed: linear, cosine"),
        ({"head_scale": 0.0}, "`head_scale` is 0.0; it must be positive"),
        ({"head_margin": 0.5}, "`head_margin` has no effect on a linear head"),
        ({"head_type": "cosine", "head_margin": 0.5}, "`head_margin` has no effect on a cosine head"),
        ({"head_type": "combined"}, r"a combined head needs the list \[m1, m2, m3\]"),
        ({"head_type": "combined", "head_margin": [0.0, 0.5, 0.0]}, "m1 must be positive, m2 and m3 not negative"),
        ({"head_type": "combined", "head_margin": [1.35, 0.0, 0.0]}, "set `head_gradient='straight_through'`"),
        ({"head_type": "arcface", "head_margin": [1.0, 0.5, 0.0]}, "arcface takes one number that is not negative"),
        ({"head_type": "adaface", "head_margin": -0.4}, "adaface takes one number that is not negative"),
        ({"head_type": "arcface", "head_gradient": "exact"}, "`head_gradient` is 'exact'; allowed: true, straight"),
        ({"projector": "mlp", "embedding_size": 8}, "`projector` is 'mlp'; allowed: None, linear"),
        ({"projector": "linear"}, "`projector` needs `embedding_size`"),
        ({"image_size": 0}, "`image_size` is 0; it must be at least 1"),
        ({"embedding_size": -1}, "`embedding_size` is -1"),
        ({"num_labels": 0}, "`num_labels` is 0"),
        ({"embeding_size": 8}, "no field `embeding_size`; did you mean `embedding_size`"),
        ({"num_labels": 3, "id2label": {0: "a"}}, "`num_labels` is 3 but `id2label` names 1"),
    ],
)
def test_wrong_configurations_name_the_field(fields, message):
    with pytest.raises(Exception, match=message):
        HeadShareConfig(**fields)


def test_wrong_types_name_the_field():
    with pytest.raises(Exception, match="image_size"):
        HeadShareConfig(image_size="large")


def test_another_embedding_size_needs_a_projector():
    with pytest.raises(ValueError, match="`embedding_size` is 128 but resnet8 has 64 features; set `projector`"):
        HeadShareModel(HeadShareConfig(backbone="resnet8", embedding_size=128))
    model = resnet(embedding_size=128, projector="linear_bn_relu").eval()
    output = model(torch.randn(2, 3, 32, 32))
    assert output.embeddings.shape == (2, 128) and (output.embeddings >= 0).all()
    assert model.classifier.in_features == 128


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"head_type": "cosine", "head_scale": 8.0},
        {"embedding_size": 32, "projector": "linear_bn_relu"},
        {"backbone": "timm/test_resnet"},
        {"backbone": "timm/test_vit", "backbone_kwargs": {"img_size": 32}},
        {"backbone": "wrn_16_1", "backbone_kwargs": {"drop_rate": 0.3}},
        {"num_channels": 1},
    ],
    ids=str,
)
def test_saved_models_come_back_bit_equal(fields, tmp_path):
    model = resnet(**{"backbone": "resnet8", **fields}).eval()
    model.save_pretrained(tmp_path)
    again = HeadShareForImageClassification.from_pretrained(tmp_path).eval()
    assert_same(snapshot(again), snapshot(model))
    images = torch.randn(2, model.config.num_channels, 32, 32)
    assert torch.equal(again(images).logits, model(images).logits)
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize("fields", [{}, {"head_type": "cosine"}])
def test_a_save_leaves_no_weights_of_an_earlier_one(fields, tmp_path):
    index, own = tmp_path / "model.safetensors.index.json", tmp_path / "model-of-mine.safetensors"
    own.write_bytes(b"0")
    for seed, (size, whole) in enumerate((("50GB", True), ("100KB", False), ("50GB", True))):
        model = resnet(seed=seed, **fields)
        model.save_pretrained(tmp_path, max_shard_size=size)
        assert (tmp_path / "model.safetensors").exists() == whole and index.exists() != whole and own.exists()
        assert_same(snapshot(HeadShareForImageClassification.from_pretrained(tmp_path)), snapshot(model))


def test_auto_classes_find_everything(tmp_path):
    model = resnet()
    model.config.id2label = dict(enumerate("abcde"))
    model.save_pretrained(tmp_path)
    HeadShareImageProcessor(channel_order="bgr").save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), HeadShareConfig)
    assert AutoConfig.from_pretrained(tmp_path).id2label[3] == "d"
    found = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert isinstance(found, HeadShareForImageClassification)
    assert isinstance(AutoModel.from_pretrained(tmp_path), HeadShareModel)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(processor, HeadShareImageProcessor) and processor.channel_order == "bgr"
    classify = pipeline("image-classification", model=str(tmp_path), image_processor=str(tmp_path))
    answer = classify(Image.new("RGB", (40, 30), "red"))
    assert {entry["label"] for entry in answer} <= set("abcde")


def test_the_embedding_model_leaves_the_class_matrix_behind(tmp_path):
    model = resnet().eval()
    model.save_pretrained(tmp_path)
    body = HeadShareModel.from_pretrained(tmp_path).eval()
    assert not any("classifier" in name for name in body.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(body(images).embeddings, model(images).embeddings)


def test_output_has_loss_logits_embeddings_and_stages():
    model = resnet("resnet20").eval()
    images, labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 4])
    output = model(images, labels=labels, output_hidden_states=True)
    assert output.logits.shape == (3, 5) and output.embeddings.shape == (3, 64)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, labels))
    torch.testing.assert_close(model.classifier(output.embeddings), output.logits)
    assert [tuple(m.shape[1:]) for m in output.hidden_states] == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]
    torch.testing.assert_close(output.pre_activations[-1].relu(), output.hidden_states[-1])
    assert (output.pre_activations[-1] < 0).any()
    plain = model(images)
    assert plain.hidden_states is None and plain.loss is None
    assert model(images, return_dict=False)[0].shape == (3, 5)


def _edit(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("classifier.bias"), "missing keys: .*classifier.bias"),
        (lambda t: t.update(stranger=torch.zeros(1)), "unexpected keys: .*stranger"),
        (lambda t: t.update({"classifier.weight": torch.zeros(5, 32)}), "classifier.weight"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(change, message, tmp_path):
    resnet().save_pretrained(tmp_path)
    _edit(tmp_path, change)
    with pytest.raises((ValueError, RuntimeError), match=message):
        HeadShareForImageClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", [HeadShareForImageClassification, HeadShareModel])
@pytest.mark.parametrize(
    "saved, told",
    [
        ({"backbone": "resnet14"}, " (its tensors are those of resnet14); unexpected keys: "),
        ({"backbone": "resnet8x4", "head_type": "cosine"}, " (its tensors are those of resnet8x4); "),
        ({"backbone": "wrn_16_2", "num_channels": 1}, " (its tensors are those of wrn_16_2 with `num_channels` 1); "),
        (
            {"num_channels": 1},
            " (its tensors are those of resnet8 with `num_channels` 1); mismatched keys: {body}backbone.conv1.weight is "
            "(16, 1, 3, 3) instead of (16, 3, 3, 3). Load it",
        ),
        (
            {"backbone": "mobilefacenet", "image_size": 48, "embedding_size": 24},
            " (its tensors are those of mobilefacenet with `image_size` [48, 48], `embedding_size` 24); ",
        ),
        ({"backbone": "timm/test_resnet"}, " (its tensors are those of a timm network); missing keys: "),
        ({"embedding_size": 32, "projector": "linear"}, "; unexpected keys: "),
    ],
)
def test_weights_of_another_network_are_refused_and_recognized(saved, told, kind, tmp_path):
    resnet(**saved).save_pretrained(tmp_path)
    resnet().config.save_pretrained(tmp_path)
    with pytest.raises(ValueError) as caught:
        kind.from_pretrained(tmp_path)
    told = told.format(body="" if kind is HeadShareModel else "headshare.")
    assert f"does not fit {kind.__name__} with backbone 'resnet8'{told}" in str(caught.value)
    assert len(str(caught.value)) < 1500


_CONVERT = "`python -m headshare_hf.hub.convert`"


def _beside(folder, tensors, **fields):
    """A folder with our configuration of a network beside weights of any origin; what loading it says."""
    resnet(**fields).save_pretrained(folder)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    with pytest.raises(ValueError) as caught:
        HeadShareForImageClassification.from_pretrained(folder)
    assert len(str(caught.value)) < 1500
    return str(caught.value)


@pytest.mark.parametrize("wrapper", ["", "module.", "module._orig_mod.", "module.model_s."])
@pytest.mark.parametrize("backbone", ["resnet8", "resnet14"])
def test_the_layout_of_the_authors_is_recognized(wrapper, backbone, tmp_path):
    body = resnet(backbone).headshare.backbone.state_dict()
    tensors = {**body, "fc.weight": torch.ones(5, 64), "fc.bias": torch.ones(5)}
    tensors = {f"{wrapper}{name}": tensor for name, tensor in tensors.items()}
    if "model_s" in wrapper:
        tensors["module.t_head.weight"] = torch.ones(5, 64)
    told = _beside(tmp_path, tensors)
    assert f"'resnet8' (its tensors look like {backbone} in the layout of the authors' code); missing keys: " in told
    assert told.endswith(f". Convert it with {_CONVERT}.")


@pytest.mark.parametrize(
    "backbone, source",
    [
        ("mobilefacenet_1x", "insightface"),
        ("mobilefacenet_112x96", "MobileFaceNet_Pytorch"),
        ("iresnet18", "insightface"),
    ],
)
def test_the_layouts_of_face_networks_are_recognized(backbone, source, tmp_path):
    body = resnet(backbone, image_size=48, embedding_size=16).headshare.backbone.state_dict()
    assert f" (its tensors look like {backbone} in the layout of {source}); missing keys: " in _beside(tmp_path, body)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_our_own_layout_under_a_wrapper_is_recognized(wrapper, tmp_path):
    tensors = {f"{wrapper}{name}": tensor for name, tensor in resnet().state_dict().items()}
    told = _beside(tmp_path, tensors)
    assert f" (its tensors are those of resnet8, all of them under `{wrapper}`); missing keys: " in told
    assert told.endswith(f". Save the model that is wrapped, `model.{wrapper}save_pretrained(...)`.")


@pytest.mark.parametrize("backbone", ["resnet20", "timm/test_resnet"])
def test_weights_of_another_package_are_told_by_their_prefix(backbone, tmp_path):
    told = _beside(tmp_path, vit().state_dict(), backbone=backbone)
    assert f"with backbone '{backbone}' (22 of its 24 tensors are under `vit.`); missing keys: " in told
    # The converter does not take them.
    assert told.endswith(". Load it with the class and configuration that it was saved from.")


def test_weights_of_another_timm_network_are_told_apart(tmp_path):
    other, same = resnet("timm/test_vit").state_dict(), resnet("timm/test_resnet").state_dict()
    told = _beside(tmp_path, other, backbone="timm/test_resnet")
    assert " (its tensors are those of a timm network other than timm/test_resnet); missing keys: " in told
    gray = resnet("timm/test_resnet", num_channels=1).state_dict()
    told = _beside(tmp_path, gray, backbone="timm/test_resnet")
    assert " (its tensors have the names of timm/test_resnet, and other shapes: `num_channels` or `backbone_kw" in told
    prefix = "headshare.backbone.model.timm_model."
    plain = {name.removeprefix(prefix): tensor for name, tensor in same.items() if name.startswith(prefix)}
    told = _beside(tmp_path, {**plain, "fc.weight": torch.ones(5, 8)}, backbone="timm/test_resnet")
    assert " (its tensors look like timm/test_resnet in the layout of timm); missing keys: " in told
    assert told.endswith(". Convert it with `python -m headshare_hf.hub.convert --backbone timm/test_resnet`.")
    plain = {name.removeprefix(prefix): tensor for name, tensor in other.items() if name.startswith(prefix)}
    told = _beside(tmp_path, plain, backbone="timm/test_resnet")
    assert " (its tensors are not those of timm/test_resnet, neither in this package's layout nor in timm's)" in told


def test_shards_are_recognized_too(tmp_path):
    resnet("resnet14").save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    resnet().config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="with backbone 'resnet8' .its tensors are those of resnet14.;"):
        HeadShareForImageClassification.from_pretrained(tmp_path)


def test_random_weights_follow_the_seed_and_the_paper():
    assert_same(snapshot(resnet(seed=3)), snapshot(resnet(seed=3)))
    assert not torch.equal(resnet(seed=3).classifier.weight, resnet(seed=4).classifier.weight)
    weight = resnet("resnet8x4").headshare.backbone.layer3[0].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


def test_gray_images_need_no_color():
    model = resnet(num_channels=1).eval()
    assert model(torch.randn(2, 1, 32, 32)).logits.shape == (2, 5)
    with pytest.raises(ValueError, match="`pixel_values` must have the shape"):
        model(torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("head_type", ["linear", "cosine"])
def test_scores_are_not_rounded_where_they_decide(head_type):
    model, images = resnet(head_type=head_type).eval(), torch.randn(4, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images)
    assert output.logits.dtype == torch.float32 and output.embeddings.dtype == torch.bfloat16
    assert torch.equal(output.logits, model.classifier(output.embeddings.float()))
    assert not torch.equal(output.logits, output.logits.bfloat16().float())


def test_training_computes_scores_in_the_precision_asked_for():
    with torch.autocast("cpu", torch.bfloat16):
        assert resnet().train()(torch.randn(4, 3, 16, 16)).logits.dtype == torch.bfloat16
    assert resnet().bfloat16().eval()(torch.randn(4, 3, 16, 16).bfloat16()).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("training", [True, False])
def test_shapes_of_a_whole_model_are_found_without_memory(training):
    with torch.device("meta"):
        model = HeadShareForImageClassification(HeadShareConfig(backbone="resnet8", num_labels=5)).train(training)
        assert model(torch.zeros(2, 3, 32, 32)).logits.shape == (2, 5)
