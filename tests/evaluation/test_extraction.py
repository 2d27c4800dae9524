"""Embeddings of a data set: order, mirror images, resuming, and every refusal."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from counted_images import CountingImages
from safetensors.numpy import load_file, save_file
from torch import nn
from toys import ToyImages, resnet, snapshot, vit

from headshare_hf import HeadShareConfig, HeadShareImageProcessor, HeadShareModel
from headshare_hf.evaluation import extract_embeddings
from headshare_hf.evaluation.embedding_parts import EmbeddingParts
from headshare_hf.evaluation.processes import on_main_process
from headshare_hf.models import embedding_tap
from headshare_hf.models.modeling_headshare import HeadShareModelOutput


def _expected(model: HeadShareModel, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(images).embeddings.numpy()


@pytest.fixture
def model():
    return resnet().headshare


@pytest.fixture
def images():
    return CountingImages(23)


def test_rows_are_in_order_and_the_right_half_is_mirrored(model, images):
    found = extract_embeddings(model, images, batch_size=5, flip=True)
    assert found.shape == (23, 128) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, :64], _expected(model, images.images), rtol=1e-4, atol=1e-5)
    mirrored = torch.from_numpy(images.images.numpy()[..., ::-1].copy())
    np.testing.assert_allclose(found[:, 64:], _expected(model, mirrored), rtol=1e-4, atol=1e-5)
    assert np.abs(found[:, :64] - found[:, 64:]).max() > 1e-3
    assert images.seen == list(range(23))


def test_workers_and_batch_size_change_nothing(model, images):
    one = extract_embeddings(model, images, batch_size=1)
    np.testing.assert_allclose(
        extract_embeddings(model, images, batch_size=8, num_workers=1), one, rtol=1e-4, atol=1e-5
    )


def test_modes_weights_and_gradients_are_left_as_they_were(images):
    model = resnet().train()
    model.headshare.backbone.eval()
    modes, weights = [module.training for module in model.modules()], snapshot(model)
    extract_embeddings(model, images)
    assert [module.training for module in model.modules()] == modes and len(set(modes)) == 2
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled() and model.classifier.weight.requires_grad


def test_modes_come_back_after_an_error(model):
    model.train()
    with pytest.raises(ValueError, match="pixel_values"):
        extract_embeddings(model, [{"labels": torch.tensor(1)}])
    assert model.training


def test_a_classifier_and_its_embedding_model_agree(model, images):
    assert np.array_equal(extract_embeddings(resnet(), images), extract_embeddings(model, images))


@pytest.mark.parametrize("make", [resnet, vit])
def test_no_logits_are_computed(make, images, monkeypatch):
    """Of many classes they would be larger than everything else."""
    model, widths, linear = make(num_labels=999), [], torch.nn.functional.linear
    expected = extract_embeddings(model, images)

    def watched(*args):
        found = linear(*args)
        widths.append(found.shape[-1])
        return found

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    assert np.array_equal(extract_embeddings(model, images), expected) and 999 not in widths
    monkeypatch.undo()
    assert model(torch.zeros(1, 3, 16, 16)).logits.shape == (1, 999)


def test_a_transformers_classifier_gives_what_its_classifier_reads(images):
    model = vit()
    found = extract_embeddings(model, images, batch_size=10)
    tap = embedding_tap(model)
    with torch.no_grad():
        model.eval()(images.images)
    np.testing.assert_allclose(found, tap.take().numpy(), rtol=1e-4, atol=1e-5)


def test_a_model_with_neither_embeddings_nor_a_classifier_is_refused(images):
    class Plain(nn.Module):
        def forward(self, pixel_values):
            return pixel_values.flatten(1)

    with pytest.raises(ValueError, match="output of Plain has no `embeddings`, and Plain has no classifier"):
        extract_embeddings(Plain(), images)


class _Sums(nn.Module):
    """Its embedding is computed from the pixels by a function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, pixel_values):
        return HeadShareModelOutput(embeddings=self.function(pixel_values))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_embedding_that_is_not_finite_names_the_image(images, bad, tmp_path):
    images.images[17, 1, 2, 3] = bad
    model = _Sums(lambda pixels: pixels.sum(dim=(2, 3)))
    with pytest.raises(ValueError, match="embedding of image 17 of faces is not finite"):
        extract_embeddings(model, images, batch_size=4, part_rows=8, name="faces", folder=tmp_path)
    assert len(list(tmp_path.glob("rows-*.safetensors"))) == 2


def test_a_map_for_each_image_is_refused(images):
    with pytest.raises(ValueError, match=r"shape \(23, 3, 16, 16\); there must be one vector for each image"):
        extract_embeddings(_Sums(lambda pixels: pixels), images)


def test_images_that_do_not_fit_the_model_are_refused(images):
    gray = HeadShareModel(HeadShareConfig(backbone="resnet8", num_channels=1))
    with pytest.raises(ValueError, match=r"shape \(batch_size, 1, height, width\)"):
        extract_embeddings(gray, images)
    face = HeadShareModel(HeadShareConfig(backbone="mobilefacenet", image_size=32, embedding_size=8))
    with pytest.raises(ValueError, match="images are 16x16 pixels"):
        extract_embeddings(face, images)


@pytest.mark.parametrize("field", ["batch_size", "part_rows"])
def test_counts_must_be_positive(model, images, field):
    with pytest.raises(ValueError, match=f"`{field}` is 0; it must be at least 1"):
        extract_embeddings(model, images, **{field: 0})


def test_an_empty_set_is_refused(model):
    with pytest.raises(ValueError, match="lfw has no images"):
        extract_embeddings(model, ToyImages(0), name="lfw")


def test_parts_are_kept_and_only_missing_ones_are_made_anew(model, images, tmp_path):
    options = {"batch_size": 4, "part_rows": 8, "folder": tmp_path, "flip": True}
    first = extract_embeddings(model, images, **options)
    files = sorted(tmp_path.glob("rows-*.safetensors"))
    assert [len(load_file(file)["embeddings"]) for file in files] == [8, 8, 7]
    files[1].unlink()
    (tmp_path / "rows-0000000008.partial").write_bytes(b"half a file")
    resumed = CountingImages(23)
    assert np.array_equal(extract_embeddings(model, resumed, **options), first)
    sample = {int(place) for place in np.linspace(0, 22, 16)}
    assert set(resumed.seen) - sample <= set(range(8, 16)) and not list(tmp_path.glob("*.partial"))
    again = CountingImages(23)
    assert np.array_equal(extract_embeddings(model, again, **options), first) and set(again.seen) == sample


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": resnet(seed=1).headshare}, "weights is '.*' there and '.*' now"),
        ({"dataset": ToyImages(23, seed=1)}, "images.sample is"),
        ({"dataset": ToyImages(24)}, "images.number is 23 there and 24 now"),
        ({"name": "cfp"}, "images.name is 'images' there and 'cfp' now"),
        ({"flip": True}, "flip is False there and True now"),
        ({"part_rows": 9}, "rows_per_file is 8 there and 9 now"),
        (
            {"processor": HeadShareImageProcessor(channel_order="bgr")},
            "processor.channel_order is 'rgb' there and 'bgr'",
        ),
    ],
)
def test_a_folder_of_something_else_is_refused_and_kept(model, images, tmp_path, change, message):
    options = {"part_rows": 8, "folder": tmp_path, "processor": HeadShareImageProcessor()}
    first = extract_embeddings(model, images, **options)
    with pytest.raises(ValueError, match=message):
        extract_embeddings(**{"model": model, "dataset": images, **options, **change})
    assert np.array_equal(extract_embeddings(model, images, **options), first)


def test_a_folder_without_key_is_refused(tmp_path):
    save_file({"embeddings": np.zeros((2, 2), np.float32)}, tmp_path / "rows-0000000000.safetensors")
    with pytest.raises(ValueError, match="has embeddings but no key.json"):
        EmbeddingParts(tmp_path, {"weights": "a"}, 2, 2)


def test_a_damaged_key_is_refused(tmp_path):
    (tmp_path / "key.json").write_text("{")
    with pytest.raises(ValueError, match="key.json is damaged"):
        EmbeddingParts(tmp_path, {"weights": "a"}, 2, 2)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"embeddings": np.zeros((3, 2), np.float32)}, "has no 2 rows of float32"),
        ({"embeddings": np.zeros((2, 2), np.float64)}, "has no 2 rows of float32"),
        ({"other": np.zeros((2, 2), np.float32)}, "has no 2 rows of float32"),
        (None, r"rows-0000000000.safetensors cannot be read .*delete this file"),
    ],
)
def test_a_damaged_part_is_named(tmp_path, content, message):
    parts = EmbeddingParts(tmp_path, {}, 2, 2)
    parts.write(range(0, 2), np.zeros((2, 2), np.float32))
    if content is None:
        (tmp_path / "rows-0000000000.safetensors").write_bytes(b"nothing")
    else:
        save_file(content, tmp_path / "rows-0000000000.safetensors")
    with pytest.raises(ValueError, match=message):
        parts.read(range(0, 2))


def test_an_error_of_the_main_process_comes_through():
    assert on_main_process(Accelerator(cpu=True), lambda: 7) == 7
    with pytest.raises(KeyError, match="gone"):
        on_main_process(Accelerator(cpu=True), lambda: {}["gone"])


SLOW = """
import sys, time
from toys import ToyImages, resnet
from headshare_hf.evaluation import extract_embeddings

class SlowImages(ToyImages):
    def __getitem__(self, index):
        time.sleep(0.05 if index >= 16 else 0)
        return super().__getitem__(index)

extract_embeddings(resnet().headshare, SlowImages(400), batch_size=4, part_rows=8, folder=sys.argv[1])
"""


@pytest.mark.slow
def test_an_extraction_that_is_killed_goes_on(model, tmp_path):
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent / "src")])}
    with subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path)], env=environment) as process:
        while process.poll() is None and len(list(tmp_path.glob("rows-*.safetensors"))) < 4:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("rows-*.safetensors")}
    assert 4 <= len(kept) < 50 and json.loads((tmp_path / "key.json").read_text())["images"]["number"] == 400
    images = ToyImages(400)
    found = extract_embeddings(model, images, batch_size=4, part_rows=8, folder=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert np.array_equal(found, extract_embeddings(model, images, batch_size=4, part_rows=8))


def test_a_model_in_bfloat16_gets_images_in_its_precision(images):
    model = resnet().bfloat16()
    found = extract_embeddings(model, images, flip=True)
    assert found.dtype == np.float32 and images.images.dtype == torch.float32
    np.testing.assert_allclose(found, extract_embeddings(model.float(), images, flip=True), rtol=0.05, atol=0.05)
