"""A whole export, in a folder."""

import json

import pytest
import torch
from toys import resnet, vit
from transformers import AutoConfig, AutoImageProcessor, AutoModel

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
