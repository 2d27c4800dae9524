"""A whole export, in a folder."""

import json
import sys

import datasets
import numpy as np
import pytest
import torch
from toys import resnet, vit
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextImageProcessor,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from headshare_hf import HeadShareImageProcessor
from headshare_hf.hub import ExportOptions, OnnxModel, export_run, quantize_onnx, run_export


def _save(folder, **fields):
    resnet(**fields).save_pretrained(folder)
    HeadShareImageProcessor().save_pretrained(folder)
    return str(folder)


def _export(folder, model, **options):
    return run_export(ExportOptions(model, folder / "out", batch_sizes=(1,), repeats=1, **options))


@pytest.fixture
def measured(monkeypatch):
    """The networks of the last latency table."""
    seen, measure = {}, export_run.latency_table

    def note(entries, *args, **kwargs):
        seen.clear()
        seen.update({name: entry.model for name, entry in entries.items()})
        return measure(entries, *args, **kwargs)

    monkeypatch.setattr(export_run, "latency_table", note)
    return seen


@pytest.mark.parametrize(
    "student, teacher, options, part",
    [
        ("linear", "linear", {}, "logits, with classifiers"),
        ("linear", "linear", {"embeddings_only": True}, "embeddings, without classifiers"),
        ("cosine", "arcface", {}, "embeddings, without classifiers"),
        ("cosine", "linear", {}, "embeddings, without classifiers"),
        ("linear", "cosine", {}, "embeddings, without classifiers"),
    ],
)
def test_the_same_part_of_all_networks_is_measured(tmp_path, measured, student, teacher, options, part):
    names = [_save(tmp_path / kind, head_type=head) for kind, head in (("student", student), ("teacher", teacher))]
    record = _export(tmp_path, names[0], teacher=names[1], quantize="dynamic", **options)
    assert len(measured) == 4 and record["latency"]["measured"] == part
    assert f"Measured: {part}." in (tmp_path / "out" / "latency.md").read_text()
    with torch.no_grad():
        outputs = {name: model(torch.zeros(1, 3, 32, 32)) for name, model in measured.items()}
    assert {"logits" in output for output in outputs.values()} == {part.startswith("logits")}
    assert all(output.embeddings.shape == (1, 64) for output in outputs.values())
    # Only what is measured leaves them out.
    logits = () if options else ("logits",)
    assert OnnxModel(tmp_path / "out" / "model.onnx").outputs == (*logits, "embeddings")


def test_the_embeddings_of_a_file_without_its_classifier(tmp_path):
    model = _save(tmp_path / "model", head_type="cosine")
    _export(tmp_path, model)
    path, images = tmp_path / "out" / "model.onnx", torch.randn(2, 3, 32, 32)
    whole, part = OnnxModel(path), OnnxModel(path, embeddings_only=True)
    assert (part.outputs, part.metadata) == (("embeddings",), whole.metadata)
    torch.testing.assert_close(part(images).embeddings, whole(images).embeddings)
    quantize_onnx(path, tmp_path / "int8.onnx")
    assert OnnxModel(tmp_path / "int8.onnx", embeddings_only=True)(images).embeddings.shape == (2, 64)


def test_nothing_is_written_where_the_teacher_is_missing(tmp_path):
    model = _save(tmp_path / "model")
    with pytest.raises(OSError, match="absent"):
        _export(tmp_path, model, teacher=str(tmp_path / "absent"))
    assert not (tmp_path / "out").exists()


def test_a_truncated_teacher_is_named(tmp_path):
    model, teacher = _save(tmp_path / "model"), tmp_path / "teacher"
    vit(image_size=32).save_pretrained(teacher)
    HeadShareImageProcessor().save_pretrained(teacher)
    path = teacher / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{path} is damaged or cut off"):
        _export(tmp_path, model, teacher=str(teacher))


def test_a_teacher_has_a_revision(tmp_path, monkeypatch):
    model, teacher = _save(tmp_path / "model"), _save(tmp_path / "teacher", head_type="cosine")
    asked = []
    for kind in (AutoConfig, AutoImageProcessor, AutoModel):
        load = kind.from_pretrained

        def stand_in(name, revision=None, load=load, **options):
            asked.append((name, revision))
            return load(teacher if name == "someone/teacher" else name, **options)

        monkeypatch.setattr(kind, "from_pretrained", stand_in)
    _export(tmp_path, model, teacher="someone/teacher@v1")
    assert asked.count(("someone/teacher", "v1")) == 3


def test_files_of_an_earlier_export_do_not_stay(tmp_path):
    first, second = _save(tmp_path / "first"), _save(tmp_path / "second", seed=1)
    _export(tmp_path, first, quantize="dynamic", torch_export=True)
    (tmp_path / "out" / "notes.txt").touch()
    _export(tmp_path, second)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("model.onnx", "export.json", "latency.md", "notes.txt")
    }
    assert json.loads((tmp_path / "out" / "export.json").read_text())["model"] == second


def _save_images(folder):
    """A data set with two configurations, each with a column of images and two of labels."""
    folder.mkdir()
    classes = {"kind": datasets.ClassLabel(num_classes=5), "shade": datasets.ClassLabel(num_classes=2)}
    features = datasets.Features(picture=datasets.Image(), other=datasets.Image(), **classes)
    pictures = [np.full((8, 8, 3), 20 * number, dtype=np.uint8) for number in range(10)]
    for name, length in (("whole", 10), ("part", 5)):
        rows = {"kind": [number % 5 for number in range(length)], "shade": [number % 2 for number in range(length)]}
        images = {"picture": pictures[:length], "other": pictures[:length]}
        datasets.Dataset.from_dict({**images, **rows}, features=features).to_parquet(folder / f"{name}.parquet")
    splits = "".join(
        f"- config_name: {name}\n  data_files:\n  - {{split: test, path: {name}.parquet}}\n"
        for name in ("whole", "part")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{splits}---\n")
    return str(folder)


def _earlier_export(folder):
    folder.mkdir()
    names = {"model.onnx", "model.int8.onnx", "model.pt2", "export.json", "latency.md"}
    for name in names:
        (folder / name).touch()
    return names


def test_columns_and_configuration_of_the_images(tmp_path):
    model, data = _save(tmp_path / "model"), _save_images(tmp_path / "images")
    columns = {"image_column": "picture", "label_column": "kind"}
    for name, length in (("whole", 10), ("part", 5)):
        record = _export(tmp_path, model, quantize="dynamic", data=data, config_name=name, **columns)
        assert record["int8"]["cost"]["num_images"] == length and "accuracy" in record["int8"]["cost"]["after"]


_PICTURES = {"quantize": "dynamic", "data": "images", "config_name": "whole", "image_column": "picture"}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"opset": 3}, "`opset` is 3"),
        ({"quantize": "dynamic", "data": "absent"}, "absent"),
        ({"quantize": "static", "pairs": "absent.bin"}, "absent.bin"),
        ({**_PICTURES, "split": "validation", "label_column": "kind"}, "has no split 'validation'"),
        ({**_PICTURES, "quantize": "static", "label_column": "kind"}, "has no split 'train'"),
        ({**_PICTURES, "label_column": "color"}, "'color'"),
        ({**_PICTURES, "label_column": "kind", "image_column": "painting"}, "'painting'"),
        (_PICTURES, "several label columns among .*kind, shade"),
        ({**_PICTURES, "label_column": "shade"}, "images has 2 classes and the model 5"),
    ],
)
def test_what_fails_leaves_an_earlier_export_in_place(options, message, tmp_path):
    model, _ = _save(tmp_path / "model"), _save_images(tmp_path / "images")
    earlier = _earlier_export(tmp_path / "out")
    places = {key: str(tmp_path / options[key]) for key in ("data", "pairs") if key in options}
    with pytest.raises((ValueError, OSError), match=message):
        _export(tmp_path, model, **{**options, **places})
    assert {path.name for path in (tmp_path / "out").iterdir()} == earlier


def test_a_missing_package_leaves_an_earlier_export_in_place(tmp_path, monkeypatch):
    earlier = _earlier_export(tmp_path / "out")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match="ONNX export needs onnxscript"):
        _export(tmp_path, _save(tmp_path / "model"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == earlier


def test_what_is_known_of_the_files_is_written_before_they_are_timed(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(export_run, "latency_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _export(tmp_path, _save(tmp_path / "model"), quantize="dynamic")
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["onnx"]["file"] == "model.onnx" and record["int8"]["mode"] == "dynamic" and "latency" not in record


def _save_convnext(folder):
    config = ConvNextConfig(hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, num_labels=5)
    ConvNextForImageClassification(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 64}).save_pretrained(folder)


def _save_timm(folder):
    cfg = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 64, 64], "interpolation": "bicubic", "crop_pct": 1.0}
    config = TimmWrapperConfig(architecture="test_convnext", num_labels=5, pretrained_cfg=cfg)
    TimmWrapperForImageClassification(config).save_pretrained(folder)


@pytest.mark.parametrize("save", [_save_convnext, _save_timm])
def test_teachers_with_any_image_processor_are_measured(save, tmp_path, monkeypatch):
    save(tmp_path / "teacher")
    sizes, measure = {}, export_run.latency_table

    def note(entries, *args, **kwargs):
        sizes.update({name: (entry.num_channels, entry.image_size) for name, entry in entries.items()})
        return measure(entries, *args, **kwargs)

    monkeypatch.setattr(export_run, "latency_table", note)
    record = _export(tmp_path, _save(tmp_path / "model"), teacher=str(tmp_path / "teacher"))
    assert record["latency"]["rows"][0]["name"] == "teacher, torch"
    assert sizes["teacher, torch"] == (3, (64, 64)) and sizes["student, torch"] == (3, (32, 32))


def test_a_teacher_whose_image_size_nothing_tells_is_named(tmp_path):
    vit(image_size=32).save_pretrained(tmp_path / "teacher")
    ConvNextImageProcessor(do_resize=False).save_pretrained(tmp_path / "teacher")
    with pytest.raises(ValueError, match="the teacher .*, a ConvNextImageProcessor.*, does not say which size"):
        _export(tmp_path, _save(tmp_path / "model"), teacher=str(tmp_path / "teacher"))
    assert not (tmp_path / "out").exists()
