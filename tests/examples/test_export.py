"""The script that exports a student, as a user starts it."""

import json
import runpy
import subprocess

import pytest
from face_sets import save_model, write_bin, write_people
from processes import ROOT, run_python
from toys import resnet

from headshare_hf import HeadShareImageProcessor
from headshare_hf.hub import OnnxModel
from headshare_hf.hub.export_run import ExportOptions, run_export


DATA = ROOT / "examples" / "data" / "omniglot-8alphabets"


def _run(*options: str) -> subprocess.CompletedProcess:
    return run_python("examples/export.py", *options, check=False)


@pytest.mark.slow
def test_a_classifier_is_exported_measured_and_compared(tmp_path):
    for name, backbone in (("student", "resnet8"), ("teacher", "resnet20")):
        resnet(backbone, num_labels=242).save_pretrained(tmp_path / name)
        HeadShareImageProcessor(image_mean=[0.9196] * 3, image_std=[0.2252] * 3).save_pretrained(tmp_path / name)
    options = ["--quantize", "static", "--data", str(DATA), "--torch-export", "--opset", "20", "--repeats", "2"]
    out = tmp_path / "out"
    done = _run(str(tmp_path / "student"), "--output", str(out), *options, "--teacher", str(tmp_path / "teacher"))
    assert done.returncode == 0, done.stderr[-3000:]
    files = {"model.onnx", "model.int8.onnx", "model.pt2", "export.json", "latency.md"}
    assert {path.name for path in out.iterdir()} == files
    record = json.loads((out / "export.json").read_text())
    assert record["onnx"]["metadata"]["opset"] == 20 == OnnxModel(out / "model.onnx").metadata["opset"]
    cost = record["int8"]["cost"]
    assert cost["num_images"] == 1210 and 0 <= cost["after"]["accuracy"] <= 1
    assert record["int8"]["size_mb_after"] < 0.5 * record["int8"]["size_mb_before"]
    names = ["teacher, torch", "student, torch", "student, ONNX", "student, ONNX int8 static"]
    assert [row["name"] for row in record["latency"]["rows"]] == names * 2
    assert (out / "latency.md").read_text().strip() in done.stdout
    for text in ("| accuracy | ", "| same first class | 1 | ", "model.pt2", "speed-up over teacher, torch"):
        assert text in done.stdout
    assert str(out) not in (out / "export.json").read_text()


def test_a_face_model_is_measured_on_pairs(tmp_path):
    model = save_model(tmp_path / "model")
    (model / "class_centers.safetensors").unlink()
    pairs = write_bin(tmp_path / "faces.bin", write_people(tmp_path / "people"))
    options = {"quantize": "static", "pairs": str(pairs), "flip": False, "batch_sizes": [2], "repeats": 1}
    record = run_export(ExportOptions(str(model), tmp_path / "out", embeddings_only=True, **options))
    assert record["onnx"]["differences"].keys() == {"embeddings"}
    assert record["onnx"]["metadata"]["channel_order"] == "bgr"
    found = record["int8"]["cost"]["verification"]
    assert found["after"]["faces_accuracy"] == pytest.approx(found["before"]["faces_accuracy"], abs=0.1)
    assert record["int8"]["num_calibration_images"] == record["int8"]["cost"]["num_images"] > 0
    # Their time does not depend on the class centers.
    again = ExportOptions(str(model), tmp_path / "out", embeddings_only=True, teacher=str(model), repeats=1)
    assert run_export(again)["latency"]["rows"][0]["name"] == "teacher, torch"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"quantize": "int4"}, "`quantize` is 'int4'; allowed: dynamic, static"),
        ({"data": "x"}, "`data` and `pairs` measure what 8 bits cost; give `quantize`"),
        ({"quantize": "static"}, "give `data` or `pairs`"),
        ({"quantize": "dynamic", "data": "x", "embeddings_only": True}, "leaves out; give `pairs`"),
        ({"flip": False}, "`flip` has no effect without `pairs`"),
        ({"image_column": "x"}, "`image_column` has no effect without `data`; leave it out"),
        ({"label_column": "x"}, "`label_column` has no effect without `data`"),
        ({"quantize": "dynamic", "pairs": "x", "config_name": "x"}, "`config_name` has no effect without `data`"),
        ({"batch_sizes": [1, 0]}, r"`batch_sizes` are \[1, 0\] and `repeats` 20; numbers from 1 on are allowed"),
        ({"batch_sizes": []}, r"`batch_sizes` are \[\]"),
        ({"repeats": 0}, "`repeats` 0; numbers from 1 on"),
    ],
)
def test_options_that_contradict_each_other(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        ExportOptions("model", tmp_path, **options)


def test_models_and_data_that_do_not_fit(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ValueError, match="is a model of type 'vit', and this export reads type 'headshare'"):
        run_export(ExportOptions(str(tmp_path / "other"), tmp_path / "out"))
    names = {index: f"class {index}" for index in range(242)}
    for number, (fields, message) in enumerate(
        [({"num_labels": 5}, "has 242 classes and the model 5"), ({"id2label": names}, "class 0 is .* in the model")]
    ):
        folder = tmp_path / f"model{number}"
        resnet(**{"num_labels": 242, **fields}).save_pretrained(folder)
        HeadShareImageProcessor().save_pretrained(folder)
        with pytest.raises(ValueError, match=message):
            run_export(ExportOptions(str(folder), tmp_path / "out", quantize="dynamic", data=str(DATA)))
    resnet().headshare.save_pretrained(tmp_path / "bare")
    HeadShareImageProcessor().save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match="the model has no classifier .*; give `pairs`"):
        run_export(ExportOptions(str(tmp_path / "bare"), tmp_path / "out", quantize="dynamic", data=str(DATA)))
    assert not (tmp_path / "out").exists()


def test_help_lists_the_options():
    found = _run("--help").stdout
    for option in ("--quantize", "--data", "--pairs", "--teacher", "--opset", "--torch-export", "--embeddings-only"):
        assert option in found


def test_columns_of_the_data_are_options():
    parse = runpy.run_path(str(ROOT / "examples" / "export.py"))["parse"]
    columns = ["--image-column", "picture", "--label-column", "kind", "--config-name", "fine"]
    options = parse(["model", "--output", "out", "--quantize", "dynamic", "--data", "images", *columns])
    assert (options.image_column, options.label_column, options.config_name) == ("picture", "kind", "fine")
