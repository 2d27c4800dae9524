"""Exported students compute what the model does."""

import json
import sys

import pytest
import torch
from toys import resnet

from headshare_hf import HeadShareConfig, HeadShareForImageClassification, HeadShareImageProcessor, HeadShareModel
from headshare_hf.hub import OnnxModel, export_network, export_onnx, export_program
from headshare_hf.hub.export_network import compare_outputs


FAMILIES = {
    "resnet8": {},
    "ResNet50": {"head_type": "cosine"},
    "wrn_16_1": {},
    "vgg8": {},
    "MobileNetV2": {},
    "ShuffleV1": {},
    "ShuffleV2": {"projector": "linear_bn_relu", "embedding_size": 16},
    "mobilefacenet": {"head_type": "combined", "head_margin": [1.0, 0.3, 0.2]},
    "mobilefacenet_1x": {"head_type": "arcface"},
    "mobilefacenet_112x96": {"head_type": "cosface", "image_size": [32, 24]},
    "iresnet18": {"head_type": "adaface"},
    "timm/test_vit": {"image_size": 160},
    "timm/test_resnet": {"num_channels": 1},
    "timm/test_efficientnet": {"head_type": "cosine"},
}


def _images(model, batch_size):
    size = model.config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(batch_size, model.config.num_channels, height, width)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A network with labels, its processor, and its ONNX file."""
    model = resnet(id2label={0: "cat", 1: "dog", 2: "élan"}, num_labels=3).eval()
    processor = HeadShareImageProcessor(channel_order="bgr", image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    path = tmp_path_factory.mktemp("export") / "new" / "model.onnx"
    return model, processor, path, export_onnx(model, path, processor=processor)


# Students of SimKD, whose projector is between their last map and the classifier.
SIMKD = [
    {"backbone": "resnet8", "map_projector": {"out_channels": 24}},
    {"backbone": "MobileNetV2", "map_projector": {"out_channels": 16, "reduction": 4, "size": [1, 1]}},
]


@pytest.mark.parametrize("fields", [*({"backbone": name, **rest} for name, rest in FAMILIES.items()), *SIMKD], ids=str)
def test_every_family_is_the_same_in_onnx(fields, tmp_path):
    model = resnet(**fields)
    # Statistics of their own, so that folded normalizations are more than the identity.
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    record = export_onnx(model, tmp_path / "model.onnx")
    assert record.differences.keys() == {"logits", "embeddings"}
    loaded, images = OnnxModel(record.path), _images(model, 5)
    with torch.inference_mode():
        expected = model.eval()(pixel_values=images)
    got = loaded(pixel_values=images)
    for output in ("logits", "embeddings"):
        scale = expected[output].abs().max().item()
        assert scale > 0
        torch.testing.assert_close(got[output], expected[output], rtol=0, atol=1e-4 * scale)
        assert 0 <= record.differences[output]["relative_difference"] <= 1e-4


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 17])
def test_the_batch_size_is_free(small, batch_size):
    model, _, path, _ = small
    images = _images(model, batch_size)
    with torch.inference_mode():
        torch.testing.assert_close(OnnxModel(path)(images).logits, model(images).logits, rtol=0, atol=1e-5)


def test_the_file_says_how_to_use_it(small):
    onnx = pytest.importorskip("onnx")
    model, processor, path, record = small
    content = onnx.load(path)
    stored = {entry.key: json.loads(entry.value) for entry in content.metadata_props}
    assert stored == record.metadata == OnnxModel(path).metadata
    assert stored["opset"] == 18 == next(entry.version for entry in content.opset_import if not entry.domain)
    assert stored["labels"] == ["cat", "dog", "élan"]
    assert stored["channel_order"] == "bgr" and stored["image_size"] == [32, 32] and stored["num_channels"] == 3
    assert stored["image_mean"] == [0.1, 0.2, 0.3] and stored["image_std"] == [0.4, 0.5, 0.6]
    assert stored["rescale_factor"] == pytest.approx(1 / 255) and stored["resize"] == {"height": 32, "width": 32}
    assert stored["backbone"] == "resnet8" and stored["head_type"] == "linear"
    assert record.to_dict()["file"] == "model.onnx" and record.size_mb == pytest.approx(path.stat().st_size / 1e6)


def test_images_prepared_by_the_metadata_alone_give_the_model_s_output(small):
    model, processor, path, _ = small
    pixels = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    onnx_model = OnnxModel(path)
    said = onnx_model.metadata
    images = pixels.permute(0, 3, 1, 2).float() * said["rescale_factor"]
    images = images.flip(1) if said["channel_order"] == "bgr" else images
    mean, std = (torch.tensor(said[name]).view(1, 3, 1, 1) for name in ("image_mean", "image_std"))
    prepared = processor(list(pixels.numpy()), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = model(pixel_values=prepared).logits
    torch.testing.assert_close(onnx_model((images - mean) / std).logits, expected, rtol=0, atol=1e-4)


def test_placeholder_labels_are_not_written_and_thresholds_are(tmp_path):
    entry = {"far": 0.01, "rule": "at_most", "similarity": 0.4, "set": "lfw", "num_impostor": 300, "flip": True}
    record = export_onnx(resnet(verification_thresholds=[entry]), tmp_path / "model.onnx", opset=20)
    assert "labels" not in record.metadata and "image_mean" not in record.metadata
    assert record.metadata["verification_thresholds"] == [entry] and record.metadata["opset"] == 20


def test_embeddings_alone(small, tmp_path):
    model, processor, path, record = small
    alone = export_onnx(model, tmp_path / "a.onnx", embeddings_only=True)
    base = HeadShareModel(model.config)
    assert alone.differences.keys() == {"embeddings"} and alone.size_mb < record.size_mb
    assert "labels" not in alone.metadata and OnnxModel(alone.path).outputs == ("embeddings",)
    assert export_onnx(base, tmp_path / "b.onnx").differences.keys() == {"embeddings"}
    images = _images(model, 4)
    assert torch.equal(OnnxModel(alone.path)(images).embeddings, OnnxModel(path)(images).embeddings)


def test_the_model_is_left_as_it_was(tmp_path):
    model = resnet().to(torch.bfloat16).train()
    model.headshare.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_program(model, tmp_path / "model.pt2")
    assert model.training and not model.headshare.training and model.dtype == torch.bfloat16
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_another_image_size(tmp_path):
    model = resnet(num_channels=1)
    record = export_onnx(model, tmp_path / "model.onnx", image_size=[40, 24])
    assert record.metadata["image_size"] == [40, 24]
    assert OnnxModel(record.path)(torch.randn(2, 1, 40, 24)).logits.shape == (2, 5)
    with pytest.raises(ValueError, match=r"exported for images of shape \(1, 40, 24\), got \(1, 32, 32\)"):
        OnnxModel(record.path)(torch.randn(2, 1, 32, 32))


@pytest.mark.parametrize("backbone", ["resnet8", "iresnet18", "timm/test_efficientnet"])
def test_a_program_is_loaded_and_computes_the_same(backbone, tmp_path):
    model = resnet(backbone).eval()
    record = export_program(model, tmp_path / "model.pt2", processor=HeadShareImageProcessor())
    extra = {"metadata.json": ""}
    program = torch.export.load(record.path, extra_files=extra).module()
    assert json.loads(extra["metadata.json"]) == record.metadata
    assert record.metadata["image_mean"] == pytest.approx([0.5071, 0.4867, 0.4408])
    for batch_size in (1, 6):
        images = _images(model, batch_size)
        with torch.inference_mode():
            expected, got = model(pixel_values=images), program(images)
        for output in ("logits", "embeddings"):
            torch.testing.assert_close(got[output], expected[output], rtol=0, atol=1e-6)


def test_a_wrong_output_is_named_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(export_network, "TOLERANCE", -1.0)
    for export, name in ((export_onnx, "model.onnx"), (export_program, "model.pt2")):
        with pytest.raises(ValueError, match=f"output `logits` of {name} differs from torch's by"):
            export(resnet(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_differences_are_measured():
    def network(shift):
        return lambda images: {"logits": images.mean((2, 3)) + 100, "embeddings": images.amax((2, 3)) + shift}

    with pytest.raises(ValueError, match="output `embeddings` of it differs"):
        compare_outputs(network(0.0), network(0.1), 3, (8, 8), "it")
    with pytest.raises(ValueError, match="output `embeddings` of it differs from torch's by nan"):
        compare_outputs(network(0.0), network(float("nan")), 3, (8, 8), "it")
    with pytest.raises(ValueError, match="by inf at batch size 1"):
        compare_outputs(network(0.0), lambda images: dict.fromkeys(("logits", "embeddings"), images), 3, (8, 8), "it")
    found = compare_outputs(network(0.0), network(1e-5), 3, (8, 8), "it")
    assert found["embeddings"]["max_abs_difference"] == pytest.approx(1e-5, rel=0.1)
    assert found["logits"]["max_abs_difference"] == 0 and found["logits"]["scale"] == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"opset": 17}, "`opset` is 17; torch's exporter and this version of onnx allow 18 to"),
        ({"opset": 999}, "`opset` is 999"),
        ({"image_size": 64, "processor": HeadShareImageProcessor()}, "makes images of 32x32 pixels; leave"),
        (
            {"processor": HeadShareImageProcessor(image_mean=[0.5], image_std=[0.5])},
            "makes 1 channels and the model reads 3",
        ),
        ({"image_size": 4}, "height and width of at least"),
    ],
)
def test_wrong_options_say_what_to_do(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_onnx(resnet("vgg8"), tmp_path / "model.onnx", **options)


def test_wrong_paths_and_models_say_what_to_do(tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    for path in (tmp_path / "model.bin", tmp_path / "folder.onnx"):
        with pytest.raises(ValueError, match=r"no name for this file; give one that ends in \.onnx"):
            export_onnx(resnet(), path)
    with pytest.raises(ValueError, match=r"ends in \.pt2"):
        export_program(resnet(), tmp_path / "model.onnx")
    with pytest.raises(TypeError, match="not a Linear"):
        export_onnx(torch.nn.Linear(1, 1), tmp_path / "model.onnx")


def test_a_network_that_cannot_be_exported_is_named(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.onnx.OnnxExporterError("a page of advice") from ValueError("Cannot view a tensor\nand more")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(
        ValueError, match="torch cannot export resnet8 to ONNX with any batch size: Cannot view a tens.*r$"
    ):
        export_onnx(resnet(), tmp_path / "model.onnx")


def test_a_class_matrix_beyond_the_format_is_refused(tmp_path):
    with torch.device("meta"):
        model = HeadShareForImageClassification(HeadShareConfig(backbone="ResNet50", num_labels=270_000))
    with pytest.raises(ValueError, match="the weights take 2.3 GB .* `embeddings_only=True`"):
        export_onnx(model, tmp_path / "model.onnx")


def test_an_opset_that_the_exporter_does_not_reach_is_refused(tmp_path, monkeypatch):
    real = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: real(*args, **{**kwargs, "opset_version": 18}))
    with pytest.raises(ValueError, match="cannot convert resnet8 to opset 20; use opset 18"):
        export_onnx(resnet(), tmp_path / "model.onnx", opset=20)


def test_files_that_are_none_of_this_package(tmp_path):
    onnx = pytest.importorskip("onnx")
    with pytest.raises(FileNotFoundError, match="missing.onnx does not exist; write one with `export_onnx`"):
        OnnxModel(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ValueError, match="onnxruntime cannot read .*text.onnx"):
        OnnxModel(tmp_path / "text.onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [result])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="other.onnx does not say how it was made"):
        OnnxModel(tmp_path / "other.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_with_the_command(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"ONNX export needs {package} .*`pip install onnx onnxruntime onnxscript`"):
        export_onnx(resnet(), tmp_path / "model.onnx")
    # Needs none of them.
    assert export_program(resnet(), tmp_path / "model.pt2").path.is_file()


def test_running_a_file_needs_onnxruntime(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="running an ONNX file needs onnxruntime .*`pip install onnxruntime`"):
        OnnxModel(small[2])
