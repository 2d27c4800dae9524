"""Checkpoints of other repositories become folders that `from_pretrained` loads."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from checkpoint_files import Payload, reference, save_legacy
from golden_data import drawn_images, drawn_weights, golden_path, load_golden
from safetensors.torch import save_file
from transformers.image_utils import PILImageResampling

from headshare_hf import HeadShareConfig, HeadShareForImageClassification, HeadShareImageProcessor, HeadShareModel
from headshare_hf.hub import ConversionOptions, convert_checkpoint, convert_state_dict
from headshare_hf.hub.convert import main
from headshare_hf.hub.convert_images import image_processor_of


REFERENCE = ["resnet8", "resnet20", "resnet8x4", "wrn_16_1", "MobileNetV2"]
FACES = {"mobilefacenet": (112, 112), "mobilefacenet_112x96": (112, 96), "iresnet18": (112, 112)}


def _student(weights):
    head = {"t_head.weight": torch.ones(20, 64), "t_head.bias": torch.ones(20)}
    return {"module." + name: t for name, t in {**{f"model_s.{k}": t for k, t in weights.items()}, **head}.items()}


def _training(weights):
    opt = argparse.Namespace(model_s="resnet8", lr=0.05)
    return {"epoch": 240, "model": weights, "best_acc": np.float32(70), "opt": opt}


def _logits(folder, golden):
    model = HeadShareForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(golden["input"])


@pytest.mark.parametrize("name", REFERENCE)
def test_the_reference_gives_its_logits(tmp_path, name):
    golden, weights = reference(name)
    torch.save(_training(weights), tmp_path / "ckpt_epoch_240.pth")
    told = main([str(tmp_path / "ckpt_epoch_240.pth"), str(tmp_path / "out")])
    output = _logits(tmp_path / "out", golden)
    torch.testing.assert_close(output.logits, golden["logits"], rtol=1e-4, atol=1e-5)
    embedding = max(key for key in golden if key.startswith("feature."))
    torch.testing.assert_close(output.embeddings, golden[embedding].flatten(1), rtol=1e-4, atol=1e-5)
    assert "took the entry 'model', left out: epoch, best_acc, opt" in told
    assert f"{name}, image_size 32" in told
    assert "linear head of 20 classes" in told
    processor = HeadShareImageProcessor.from_pretrained(tmp_path / "out")
    assert list(processor.image_mean) == [0.5071, 0.4867, 0.4408]


@pytest.mark.parametrize("wrap", [lambda weights: weights, _student, lambda w: _training(_student(w))])
@pytest.mark.parametrize("save", [torch.save, save_legacy, save_file])
def test_wrapped_and_in_every_format(tmp_path, save, wrap):
    golden, weights = reference("resnet8")
    content = wrap(weights)
    if save is save_file and "model" in content:
        content = content["model"]
    path = tmp_path / ("net.safetensors" if save is save_file else "net.pth")
    save(content, path)
    told = convert_checkpoint(path, tmp_path / "out")
    torch.testing.assert_close(_logits(tmp_path / "out", golden).logits, golden["logits"], rtol=1e-4, atol=1e-5)
    dropped = [line for line in told if "left out the teacher's classifier: " in line]
    assert len(dropped) == int(any("t_head" in name for name in content.get("model", content)))


def _face(name):
    return drawn_weights(json.loads(golden_path("face/architectures.json").read_text())[name]["state_dict"])


def _check_face(model, name):
    with torch.no_grad():
        embeddings = model.eval()(drawn_images(*FACES[name])).embeddings
    torch.testing.assert_close(embeddings, load_golden("face/networks")[f"{name}.eval"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FACES)
def test_face_networks_give_their_embeddings(tmp_path, name):
    torch.save({"iter": 36, "net_state_dict": _face(name)}, tmp_path / "036.ckpt")
    told = "\n".join(convert_checkpoint(tmp_path / "036.ckpt", tmp_path / "out"))
    _check_face(HeadShareModel.from_pretrained(tmp_path / "out"), name)
    assert f"HeadShareModel: {name}" in told
    assert "no classifier" in told
    processor = HeadShareImageProcessor.from_pretrained(tmp_path / "out")
    assert (processor.size.height, processor.size.width) == FACES[name]
    paper = name == "mobilefacenet_112x96"
    assert list(processor.image_std) == [128 / 255 if paper else 0.5] * 3
    assert ("Xiaoccer/MobileFaceNet_Pytorch" if paper else "insightface") in told


def test_checkpoints_of_all_processes_become_a_classifier(tmp_path):
    centers = torch.randn(7, 512)
    paths = []
    for rank, part in enumerate(torch.tensor_split(centers, 3)):
        paths.append(str(tmp_path / f"checkpoint_gpu_{rank}.pt"))
        state = {
            "epoch": 20,
            "global_step": 100,
            "state_dict_backbone": _face("iresnet18"),
            "state_dict_softmax_fc": {"weight": part},
            "state_optimizer": {"state": {}, "param_groups": []},
        }
        torch.save(state, paths[-1])
    (tmp_path / "names.txt").write_text("\n".join(f"person {i}" for i in range(7)))
    labels = ["--labels", str(tmp_path / "names.txt"), "--num-labels", "7"]
    told = main([paths[0], str(tmp_path / "out"), "--centers", *reversed(paths), *labels])
    model = HeadShareForImageClassification.from_pretrained(tmp_path / "out")
    assert torch.equal(model.classifier.weight, centers)
    assert (model.config.head_type, model.config.head_scale, model.config.id2label[6]) == ("cosine", 64.0, "person 6")
    _check_face(model, "iresnet18")
    assert "took 7 class centers from 3 files" in told
    assert "cosine head of 7 classes with scale 64" in told
    options = ConversionOptions(centers=paths, head_type="arcface", head_scale=30.0, overwrite=True)
    convert_checkpoint(paths[0], tmp_path / "out", options)
    model = HeadShareForImageClassification.from_pretrained(tmp_path / "out")
    assert (model.config.head_type, model.config.head_scale, model.config.head_margin) == ("arcface", 30.0, 0.5)
    told = convert_checkpoint(paths[1], tmp_path / "alone")
    assert any("left out: epoch, global_step, state_dict_softmax_fc, state_optimizer" in line for line in told)


def _renamed(name):
    """As TreB1eN/InsightFace_Pytorch calls a tensor of `mobilefacenet_1x`."""
    parts = ("conv1", "conv2_dw", "conv_23", "conv_3", "conv_34", "conv_4", "conv_45", "conv_5")
    words = name.replace("layers.", "").split(".")
    block, layer = ("conv", "conv_dw", "project"), ("conv", "bn", "prelu")
    if words[0] == "conv_sep":
        return f"conv_6_sep.{layer[int(words[1])]}.{words[2]}"
    if words[0] == "features":
        if words[1] == "0":
            return f"conv_6_dw.{layer[int(words[2])]}.{words[3]}"
        return f"{'linear' if words[1] == '2' else 'bn'}.{words[2]}"
    part, *inner, last, leaf = words
    inner = (
        [block[int(inner[-1])]] if len(inner) == 1 else ["model", *inner[:-1], block[int(inner[-1])]] if inner else []
    )
    return ".".join([parts[int(part)], *inner, layer[int(last)], leaf])


def test_the_mobilefacenet_of_other_names(tmp_path):
    weights = _face("mobilefacenet_1x")
    renamed = {_renamed(name): tensor for name, tensor in weights.items()}
    assert {"conv_23.conv_dw.bn.running_var", "conv_3.model.3.project.conv.weight", "conv1.prelu.weight"} <= set(
        renamed
    )
    torch.save(renamed, tmp_path / "net.pth")
    convert_checkpoint(tmp_path / "net.pth", tmp_path / "out")
    body = HeadShareModel.from_pretrained(tmp_path / "out").backbone.state_dict()
    assert body.keys() == weights.keys()
    assert all(torch.equal(body[name], weights[name]) for name in weights)


def test_the_mobilefacenet_of_other_names_with_a_classifier(tmp_path):
    weights = _face("mobilefacenet_1x")
    classifier = {"classifier.weight": torch.randn(4, 512), "classifier.bias": torch.randn(4)}
    renamed = {**{_renamed(name): tensor for name, tensor in weights.items()}, **classifier}
    torch.save({f"module.{name}": tensor for name, tensor in renamed.items()}, tmp_path / "net.pth")
    assert "linear head of 4 classes" in convert_checkpoint(tmp_path / "net.pth", tmp_path / "out")[0]
    model = HeadShareForImageClassification.from_pretrained(tmp_path / "out")
    body = model.headshare.backbone.state_dict()
    assert all(torch.equal(body[name], weights[name]) for name in weights)
    assert torch.equal(model.classifier.weight, classifier["classifier.weight"])
    without = {name: tensor for name, tensor in renamed.items() if name != "conv_6_dw.conv.weight"}
    with pytest.raises(ValueError, match=r"\(missing: headshare.backbone.features.layers.0.layers.0.weight\)$"):
        convert_state_dict(without, model.config)
    with pytest.raises(ValueError, match=r"\(unknown: kernel\)$"):
        convert_state_dict({**renamed, "kernel": torch.ones(512, 4)}, model.config)


def test_timm(tmp_path):
    name = "mobilenetv3_small_050"
    network = timm.create_model(name, num_classes=5).eval()
    state = {"epoch": 1, "arch": name, "state_dict": network.state_dict(), "args": argparse.Namespace(lr=1)}
    torch.save(state, tmp_path / "net.pth.tar")
    told = convert_checkpoint(tmp_path / "net.pth.tar", tmp_path / "out", ConversionOptions(backbone=f"timm/{name}"))
    model = HeadShareForImageClassification.from_pretrained(tmp_path / "out").eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images).logits, network(images))
    assert model.config.image_size == 224
    assert any("0.485" in line and f"timm's {name}" in line for line in told)
    with pytest.raises(
        ValueError, match=r"net.pth.tar: the weights fit none of .* For timm's networks give `backbone`"
    ):
        convert_checkpoint(tmp_path / "net.pth.tar", tmp_path / "other")


@pytest.mark.parametrize(
    "backbone, name",
    [
        ("timm/resnet18", "bicubic"),
        ("timm/resnet18.tv_in1k", "bilinear"),
        ("resnet8", "bilinear"),
    ],
)
def test_images_are_resized_as_where_the_network_comes_from(backbone, name):
    processor, note = image_processor_of(HeadShareConfig(backbone=backbone, image_size=224), "rgb")
    assert processor.resample == PILImageResampling[name.upper()]
    assert f"image processor: 224x224, {name}, rgb, mean" in note


@pytest.fixture
def resnet8(tmp_path):
    torch.save(reference("resnet8")[1], tmp_path / "net.pth")
    return tmp_path / "net.pth"


def _refused(source, folder, match, **options):
    with pytest.raises(ValueError, match=match):
        convert_checkpoint(source, folder / "out", ConversionOptions(**options))
    assert not (folder / "out").exists()


def test_every_tensor_is_accounted_for(tmp_path):
    weights, path = reference("resnet8")[1], tmp_path / "net.pth"
    rest = {name: tensor for name, tensor in weights.items() if name != "fc.bias"}
    changes = [
        (rest, r"net.pth: .*missing: classifier.bias\)"),
        (
            {**rest, "fc.bias": torch.ones(21)},
            r"20 classes .of another shape: classifier.bias is \(21,\) instead of \(20,\)",
        ),
        ({**weights, "fc.scale": torch.ones(1)}, r"nearest, resnet8, differs in fc.scale \(unknown\)"),
        ({**weights, "bn1.bias": torch.ones(16, dtype=torch.int64)}, r"no weights: .*bn1.bias is torch.int64 instead"),
    ]
    for content, match in changes:
        torch.save(content, path)
        _refused(path, tmp_path, match)
    torch.save({**{n: t for n, t in rest.items() if n != "fc.weight"}, "fc.scale": torch.ones(1)}, path)
    _refused(path, tmp_path, "the classifier fc has neither weight nor bias", backbone="resnet8")
    torch.save(weights, path)
    _refused(path, tmp_path, r"not those of resnet14 .*They look like resnet8$", backbone="resnet14")
    _refused(path, tmp_path, r"unknown backbone 'resnet9'; nearest", backbone="resnet9")


def test_options_that_do_not_fit_are_refused(tmp_path, resnet8):
    torch.save({"weight": torch.ones(4, 256)}, tmp_path / "centers.pt")
    _refused(resnet8, tmp_path, "`num_labels` is 10 but the source has 20 classes", num_labels=10)
    _refused(resnet8, tmp_path, "has a classifier of its own, fc; leave `centers`", centers=[tmp_path / "centers.pt"])
    _refused(resnet8, tmp_path, "`head_scale` is given but a linear head has no scale", head_scale=16.0)
    _refused(resnet8, tmp_path, "unknown: classifier.bias", head_type="cosine")
    _refused(resnet8, tmp_path, "only one of `mean` and `std` is given", mean=[0.5] * 3)
    _refused(resnet8, tmp_path, "has 3 channels, but there are 1 means and 1 standard", mean=[0.5], std=[0.5])
    _refused(resnet8, tmp_path, r"`image_size` is \[32, 32, 32\]", image_size=[32, 32, 32])
    torch.save(_face("mobilefacenet"), tmp_path / "face.pt")
    face, centers = tmp_path / "face.pt", [tmp_path / "centers.pt"]
    _refused(face, tmp_path, "class centers have width 256 but the embedding has 512", centers=centers)
    _refused(face, tmp_path, "`head_type` is 'linear' but class centers have no", centers=centers, head_type="linear")
    for name, value in (("num_labels", 4), ("labels", "a"), ("head_type", "cosine"), ("head_scale", 1.0)):
        _refused(face, tmp_path, f"`{name}` is given but the source has no classifier", **{name: value})


def test_names_of_classes(tmp_path, resnet8):
    path = tmp_path / "names.txt"
    names = [f"class {i}" for i in range(20)]
    for content, match in (
        ("\n".join(names[:19]).encode(), r"names.txt names 19 classes but the source has 20"),
        ("\n".join([*names[:19], names[3]]).encode(), r"names.txt has 'class 3' twice"),
        ("\n".join([*names[:19], "", names[19]]).encode(), r"names.txt has an empty line"),
        (b"\xff", r"names.txt is no text in UTF-8"),
    ):
        path.write_bytes(content)
        _refused(resnet8, tmp_path, match, labels=path)
    path.write_text("\n".join(names) + "\n")
    convert_checkpoint(resnet8, tmp_path / "out", ConversionOptions(labels=path))
    config = HeadShareForImageClassification.from_pretrained(tmp_path / "out").config
    assert list(config.id2label.values()) == names
    assert config.label2id["class 7"] == 7


def test_names_of_classes_from_an_editor_that_marks_its_files(tmp_path, resnet8):
    names = [f"class {i}" for i in range(20)]
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8-sig")
    convert_checkpoint(resnet8, tmp_path / "out", ConversionOptions(labels=tmp_path / "names.txt"))
    config = HeadShareForImageClassification.from_pretrained(tmp_path / "out").config
    assert list(config.id2label.values()) == names


def test_a_name_given_twice_among_many_is_found_at_once(tmp_path, resnet8):
    (tmp_path / "names.txt").write_text("\n".join([*map(str, range(30_000)), "people"] + ["people", "zebra", "zebra"]))
    started = time.process_time()
    _refused(resnet8, tmp_path, "names.txt has 'people' twice", labels=tmp_path / "names.txt")
    assert time.process_time() - started < 4


def test_statistics_and_size_as_given(tmp_path, resnet8):
    given = [
        "--mean",
        "0.1",
        "0.2",
        "0.3",
        "--std",
        "0.4",
        "0.5",
        "0.6",
        "--channel-order",
        "bgr",
        "--image-size",
        "64",
    ]
    told = main([str(resnet8), str(tmp_path / "out"), *given])
    processor = HeadShareImageProcessor.from_pretrained(tmp_path / "out")
    assert (processor.image_mean, processor.image_std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (processor.channel_order, processor.size.height) == ("bgr", 64)
    assert "64x64, bilinear, bgr, mean [0.1, 0.2, 0.3]" in told
    assert told.endswith(f"as given\nwrote {tmp_path / 'out'}")


def test_one_channel_needs_statistics(tmp_path):
    weights = reference("resnet8")[1]
    torch.save({**weights, "conv1.weight": weights["conv1.weight"][:, :1].clone()}, tmp_path / "net.pth")
    _refused(tmp_path / "net.pth", tmp_path, "has 1 channels, but there are 3 means and 3 .*give `mean` and `std`")
    convert_checkpoint(tmp_path / "net.pth", tmp_path / "out", ConversionOptions(mean=[0.5], std=[0.5]))
    assert HeadShareForImageClassification.from_pretrained(tmp_path / "out").config.num_channels == 1


def test_nothing_is_lost_or_left_half_written(tmp_path, resnet8, monkeypatch):
    out = tmp_path / "out"
    convert_checkpoint(resnet8, out)
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(FileExistsError, match=r"out is not empty; give another folder, or `overwrite`"):
        convert_checkpoint(resnet8, out)
    with monkeypatch.context() as patch:
        patch.setattr(
            HeadShareImageProcessor, "save_pretrained", lambda self, folder: (_ for _ in ()).throw(OSError("full"))
        )
        with pytest.raises(OSError, match="full"):
            convert_checkpoint(resnet8, out, ConversionOptions(overwrite=True))
    assert sorted(path.name for path in out.iterdir()) == before
    (out / "config.json").write_text("")
    convert_checkpoint(resnet8, out, ConversionOptions(overwrite=True))
    assert json.loads((out / "config.json").read_text())["backbone"] == "resnet8"
    (out / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match=r"out has thesis.tex, which no conversion wrote"):
        convert_checkpoint(resnet8, out, ConversionOptions(overwrite=True))
    with pytest.raises(FileExistsError, match=r"net.pth is a file; give a folder"):
        convert_checkpoint(resnet8, resnet8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pth", "out"]


@pytest.mark.parametrize("name", [".", "../here"])
def test_the_current_folder_is_refused(name, tmp_path, resnet8, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match=f"^{name} is the current folder, .*; give one in it"):
        convert_checkpoint(resnet8, name)
    assert not list((tmp_path / "here").iterdir()) and len(list(tmp_path.iterdir())) == 2


def test_the_earlier_conversion_comes_back_where_the_new_one_cannot_be_put(tmp_path, resnet8, monkeypatch):
    out = tmp_path / "out"
    convert_checkpoint(resnet8, out)
    (out / "config.json").write_text("earlier")
    rename = Path.rename

    def fail(self, target):
        if self.name == "new":
            raise OSError("no rename")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no rename"):
        convert_checkpoint(resnet8, out, ConversionOptions(overwrite=True))
    assert (out / "config.json").read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pth", "out"]


def _command(*arguments):
    command = [sys.executable, "-m", "headshare_hf.hub.convert", *map(str, arguments)]
    search = {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **search}, check=False)


def test_the_command(tmp_path, resnet8):
    done = _command(resnet8, tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "HeadShareForImageClassification: resnet8, image_size 32, 64 features, linear head of 20 cl" in done.stdout
    assert done.stdout.endswith(f"wrote {tmp_path / 'out'}\n")
    torch.save({"model": reference("resnet8")[1], "opt": Payload(tmp_path / "made")}, tmp_path / "bad.pth")
    failed = _command(tmp_path / "bad.pth", tmp_path / "other")
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"{tmp_path / 'bad.pth'} asks for a call of ")
    assert failed.stderr.count("\n") == 1
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "other").exists()
