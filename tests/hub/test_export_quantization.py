"""Files in 8 bits, and the measured cost."""

import sys

import numpy as np
import onnx
import pytest
import torch
from face_sets import write_people
from torch.utils.data import Dataset, Subset
from toys import ToyImages, resnet

from headshare_hf import HeadShareImageProcessor
from headshare_hf.data import load_verification_set
from headshare_hf.evaluation import Verifier
from headshare_hf.hub import OnnxModel, export_onnx, quantize_onnx
from headshare_hf.hub.export_cost import evenly_spread, measure_cost


class Unlabeled(Dataset):
    """The images of another data set, which count how often they are read."""

    def __init__(self, images):
        self.images, self.read = images, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.read.append(index)
        return {"pixel_values": self.images[index]["pixel_values"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that has learned the toy classes, its file in float32, and images that it has not seen."""
    model, images = resnet(verification_thresholds=None), ToyImages(80)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()
    for _ in range(30):
        optimizer.zero_grad()
        model(pixel_values=images.images, labels=images.labels).loss.backward()
        optimizer.step()
    model.config.verification_thresholds = [
        {"far": 0.01, "rule": "at_most", "similarity": 0.4, "set": "lfw", "num_impostor": 300, "flip": True}
    ]
    path = tmp_path_factory.mktemp("quantization") / "model.onnx"
    export_onnx(model, path, image_size=16)
    return path, images, ToyImages(60, seed=1)


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_the_file_is_smaller_and_the_cost_is_measured(trained, mode, tmp_path):
    path, images, test = trained
    calibration = {"calibration": images, "num_calibration_images": 24} if mode == "static" else {}
    record = quantize_onnx(path, tmp_path / "int8.onnx", mode=mode, evaluation=test, **calibration)
    assert record.size_mb_after < 0.5 * record.size_mb_before
    assert record.size_mb_after == pytest.approx((tmp_path / "int8.onnx").stat().st_size / 1e6)
    assert record.num_calibration_images == (24 if mode == "static" else 0) and record.images == "evaluation"
    cost = record.cost
    assert cost["num_images"] == 60 and cost["before"]["accuracy"] > 0.9
    assert abs(cost["after"]["accuracy"] - cost["before"]["accuracy"]) <= 0.1 and cost["agreement"] >= 0.9
    assert 0.95 < cost["embedding_cosine"]["min"] <= cost["embedding_cosine"]["mean"] < 1
    # The same again from the file itself.
    right = (OnnxModel(tmp_path / "int8.onnx")(test.images).logits.argmax(1) == test.labels).double().mean()
    assert cost["after"]["accuracy"] == pytest.approx(right.item())
    metadata = OnnxModel(tmp_path / "int8.onnx").metadata
    assert metadata == {
        **{name: value for name, value in OnnxModel(path).metadata.items() if name != "verification_thresholds"},
        "quantization": mode,
    }
    assert [file.name for file in tmp_path.iterdir()] == ["int8.onnx"]


def test_static_weights_take_seven_bits(trained, tmp_path):
    """On an x86 processor without VNNI, onnxruntime adds two products in 16 bits: with eight they overflow."""
    path, images, _ = trained
    quantize_onnx(path, tmp_path / "int8.onnx", mode="static", calibration=images)
    stored = [onnx.numpy_helper.to_array(each) for each in onnx.load(tmp_path / "int8.onnx").graph.initializer]
    weights = [tensor for tensor in stored if tensor.dtype == np.int8 and tensor.ndim > 1]
    assert len(weights) == 10 and all(tensor.min() >= -64 and tensor.max() <= 64 for tensor in weights)


def test_without_images_noise_is_compared(trained, tmp_path):
    record = quantize_onnx(trained[0], tmp_path / "int8.onnx")
    assert record.images == "noise" and record.cost["num_images"] == 32
    assert record.cost.keys() == {"num_images", "embedding_cosine", "agreement"}
    assert record.to_dict()["cost"] == record.cost


def test_calibration_images_are_spread_over_the_set(trained, tmp_path):
    calibration = Unlabeled(trained[1])
    quantize_onnx(trained[0], tmp_path / "int8.onnx", mode="static", calibration=calibration, num_calibration_images=5)
    assert calibration.read == [0, 20, 40, 59, 79] or calibration.read == [0, 20, 40, 60, 79]
    assert evenly_spread(3, 10) == [0, 1, 2] and evenly_spread(1, 10) == [0]


def test_another_family(tmp_path):
    record = export_onnx(resnet("timm/test_efficientnet", head_type="cosine"), tmp_path / "model.onnx")
    found = quantize_onnx(record.path, tmp_path / "int8.onnx")
    assert found.size_mb_after < 0.6 * found.size_mb_before and found.cost["embedding_cosine"]["min"] > 0.9


def test_pairs_are_verified_before_and_after(tmp_path):
    pairs = load_verification_set(write_people(tmp_path / "people"))
    processor = HeadShareImageProcessor()
    path = export_onnx(resnet(), tmp_path / "model.onnx", processor=processor, embeddings_only=True).path
    record = quantize_onnx(
        path, tmp_path / "int8.onnx", evaluation=pairs.dataset(processor), verifier=Verifier([pairs], processor)
    )
    found = record.cost["verification"]
    assert found["before"].keys() == found["after"].keys() >= {"people_accuracy", "people_auc", "people_eer"}
    # Embeddings of random weights still tell one face from another, and 8 bits keep that.
    assert found["before"]["people_auc"] > 0.6
    assert found["after"]["people_accuracy"] == pytest.approx(found["before"]["people_accuracy"], abs=0.1)
    assert "agreement" not in record.cost and "before" not in record.cost


def test_the_cost_of_a_change_is_seen():
    model, images = resnet().eval(), ToyImages(40)
    other = resnet(seed=1).eval()
    same, changed = measure_cost(model, model, images), measure_cost(model, other, Unlabeled(images))
    assert same["agreement"] == 1 and same["embedding_cosine"]["min"] == pytest.approx(1)
    assert same["before"] == same["after"] and changed["agreement"] < 1
    assert changed["embedding_cosine"]["min"] < 0.999 and "before" not in changed
    with pytest.raises(ValueError, match="no image to measure the cost on"):
        measure_cost(model, other, Subset(images, []))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mode": "int4"}, "`mode` is 'int4'; allowed: dynamic, static"),
        ({"mode": "static"}, "give `calibration`"),
        ({"calibration": ToyImages(2)}, "`calibration` has no effect in dynamic mode"),
        ({"mode": "static", "calibration": ToyImages(0)}, "`calibration` has no images"),
        ({"num_calibration_images": 0}, "`num_calibration_images` is 0"),
    ],
)
def test_wrong_options_say_what_to_do(trained, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        quantize_onnx(trained[0], tmp_path / "int8.onnx", **options)


def test_wrong_files_say_what_to_do(trained, tmp_path):
    with pytest.raises(ValueError, match="is the file to quantize itself"):
        quantize_onnx(trained[0], trained[0].parent / ".." / trained[0].parent.name / "model.onnx")
    with pytest.raises(FileNotFoundError, match="missing.onnx does not exist"):
        quantize_onnx(tmp_path / "missing.onnx", tmp_path / "int8.onnx")
    quantize_onnx(trained[0], tmp_path / "int8.onnx")
    with pytest.raises(ValueError, match=r"int8.onnx is in 8 bits already \(dynamic\); give the float32 file"):
        quantize_onnx(tmp_path / "int8.onnx", tmp_path / "again.onnx")
    with pytest.raises(ValueError, match="ends in .onnx"):
        quantize_onnx(trained[0], tmp_path / "int8.bin")


def test_a_missing_package_is_named_with_the_command(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="quantization to int8 needs onnx .*`pip install onnx onnxruntime`"):
        quantize_onnx(trained[0], tmp_path / "int8.onnx")


def test_the_last_of_more_images_than_float32_counts_is_there():
    found = evenly_spread(20_000_004, 1000)
    assert (found[0], found[-1], len(found)) == (0, 20_000_003, 1000)
