"""A MobileFaceNet of insightface's own code, in every wrapping, gives the embeddings that insightface printed."""

import pytest
import torch
from checkpoint_files import save_legacy
from golden_data import face_checkpoint
from safetensors.torch import save_file

from headshare_hf import HeadShareConfig, HeadShareForImageClassification, HeadShareModel
from headshare_hf.hub import ConversionOptions, convert_backbone_state_dict, convert_checkpoint


CENTERS = torch.linspace(-1, 1, 20 * 128).reshape(20, 128)
DEPTHWISE = "features.layers.0.layers.0.weight"
LINEAR = "features.layers.2.weight"


@pytest.fixture(scope="module")
def checkpoint():
    return face_checkpoint()


def _plain(weights):
    return dict(weights)


def _parallel(weights):
    return {f"module.{name}": tensor for name, tensor in weights.items()}


def _student(weights):
    """As Alibaba-MIIL/HeadSharingKD wraps a student that has the teacher's classifier beside it."""
    return _parallel({**{f"model_s.{name}": tensor for name, tensor in weights.items()}, "t_head.weight": CENTERS})


def _training(weights):
    """As arcface_torch's `train_v2.py` saves the state of a process."""
    return {
        "epoch": 20,
        "global_step": 100,
        "state_dict_backbone": weights,
        "state_dict_softmax_fc": {"weight": CENTERS},
        "state_optimizer": {"state": {}, "param_groups": [{"lr": 0.02}]},
        "state_lr_scheduler": {"last_epoch": 100},
    }


def _parallel_training(weights):
    return _training(_parallel(weights))


WRAPPINGS = [_plain, _parallel, _student, _training, _parallel_training]


def _check(model, golden):
    with torch.no_grad():
        embeddings = model.eval()(golden["input"]).embeddings
    torch.testing.assert_close(embeddings, golden["embedding"], rtol=1e-4, atol=1e-5)


def test_the_weights_are_those_that_were_stored(checkpoint):
    golden, weights = checkpoint
    last = {name.removeprefix("last."): tensor for name, tensor in golden.items() if name.startswith("last.")}
    assert len(last) == len([tensor for tensor in weights.values() if tensor.ndim > 1]) == 50
    for name, tensor in last.items():
        torch.testing.assert_close(weights[name].flatten()[-8:], tensor, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("wrap", [_plain, _parallel])
def test_tensors_in_memory(checkpoint, wrap):
    golden, weights = checkpoint
    config = HeadShareConfig(backbone="mobilefacenet_1x", image_size=112, embedding_size=128)
    model = HeadShareModel(config)
    model.load_state_dict(convert_backbone_state_dict(wrap(weights), config))
    _check(model, golden)


@pytest.mark.parametrize(
    ("wrap", "save"),
    [
        *((wrap, save) for wrap in WRAPPINGS for save in (torch.save, save_legacy)),
        # It holds tensors alone.
        *((wrap, save_file) for wrap in (_plain, _parallel, _student)),
    ],
)
def test_a_file(tmp_path, checkpoint, wrap, save):
    golden, weights = checkpoint
    source = tmp_path / ("net.safetensors" if save is save_file else "net.pt")
    save(wrap(weights), source)
    told = "\n".join(convert_checkpoint(source, tmp_path / "out"))
    _check(HeadShareModel.from_pretrained(tmp_path / "out"), golden)
    assert "HeadShareModel: mobilefacenet_1x, image_size 112, 128 features, no classifier" in told
    assert ("left out the teacher's classifier: module.t_head.weight" in told) is (wrap is _student)


def test_the_class_centers_of_a_training(tmp_path, checkpoint):
    golden, weights = checkpoint
    torch.save(_training(weights), tmp_path / "checkpoint_gpu_0.pt")
    options = ConversionOptions(centers=[tmp_path / "checkpoint_gpu_0.pt"])
    told = convert_checkpoint(tmp_path / "checkpoint_gpu_0.pt", tmp_path / "out", options)
    assert "took 20 class centers from 1 file" in told
    model = HeadShareForImageClassification.from_pretrained(tmp_path / "out")
    assert torch.equal(model.classifier.weight, CENTERS)
    _check(model, golden)


@pytest.mark.parametrize("wrap", WRAPPINGS)
def test_a_tensor_that_is_missing_unknown_or_misshapen_is_named(tmp_path, checkpoint, wrap):
    weights = checkpoint[1]
    rest = {name: tensor for name, tensor in weights.items() if name != DEPTHWISE}
    nearest = "net.pt: .*nearest, mobilefacenet_1x, differs in "
    changes = [
        (rest, rf"{nearest}{DEPTHWISE} \(missing\)\."),
        ({**weights, "stranger": torch.ones(1)}, rf"{nearest}stranger \(unknown\)\."),
        (
            {**rest, DEPTHWISE: torch.ones(512, 2, 7, 7)},
            rf"{nearest}{DEPTHWISE} \(\(512, 2, 7, 7\) instead of \(512, 1, 7, 7\)\)\.",
        ),
        ({**weights, LINEAR: torch.ones(128, 256)}, rf"{nearest}{LINEAR} \(\(128, 256\) instead of \(128, 512\)\)\."),
    ]
    for content, match in changes:
        torch.save(wrap(content), tmp_path / "net.pt")
        with pytest.raises(ValueError, match=match):
            convert_checkpoint(tmp_path / "net.pt", tmp_path / "out")
        assert not (tmp_path / "out").exists()
