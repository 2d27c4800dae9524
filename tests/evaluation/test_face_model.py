"""What an evaluation starts from."""

import hashlib
import json

import numpy as np
import pytest
import torch
from face_sets import save_model
from safetensors.torch import save_file
from toys import resnet, vit

from headshare_hf import HeadShareImageProcessor
from headshare_hf.evaluation.embedding_key import weights_digest
from headshare_hf.evaluation.face_model import load_face_model, load_features
from headshare_hf.models import CENTERS_FILE


def test_a_folder_gives_model_processor_and_digest(tmp_path):
    save_model(tmp_path)
    (tmp_path / CENTERS_FILE).write_bytes(b"not read")
    found = load_face_model(str(tmp_path))
    described = found.describe()
    assert described["weights_sha256"] == weights_digest(resnet(head_type="arcface").headshare)
    assert described["revision"] is None and described["name"] == str(tmp_path)
    assert described["processor"]["channel_order"] == "bgr" and json.dumps(described)
    save_model(tmp_path / "other", seed=1)
    assert load_face_model(str(tmp_path / "other")).digest != found.digest


def test_half_precision_weights_are_used_in_float32(tmp_path):
    save_model(tmp_path)
    resnet(head_type="arcface").bfloat16().save_pretrained(tmp_path)
    assert load_face_model(str(tmp_path)).model.dtype == torch.float32


def test_the_hub_revision_is_the_commit(tmp_path, monkeypatch):
    commit = "a" * 40
    cache = tmp_path / "models--someone--faces"
    save_model(cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert load_face_model("someone/faces").revision == commit


def test_a_model_without_processor_is_refused(tmp_path):
    resnet().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no image processor .*HeadShareImageProcessor\\(size=.*save_pretrained"):
        load_face_model(str(tmp_path))


def test_a_model_of_another_package_is_refused_by_name(tmp_path):
    vit().save_pretrained(tmp_path)
    HeadShareImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a model of type 'vit', .*call `extract_embeddings` and `verify_pairs`"):
        load_face_model(str(tmp_path))


def test_stored_features_come_from_either_format(tmp_path):
    values = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    np.save(tmp_path / "f.npy", values)
    save_file({"features": torch.from_numpy(values)}, tmp_path / "f.safetensors")
    for name in ("f.npy", "f.safetensors"):
        found = load_features(tmp_path / name)
        assert np.array_equal(np.asarray(found.values), values)
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert found.describe() == {"features": name, "sha256": digest}


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="features .*none.npy do not exist"):
        load_features(tmp_path / "none.npy")
    save_file({"a": torch.zeros(1, 2), "b": torch.zeros(1, 2)}, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="two.safetensors holds the tensors a, b; features are one tensor"):
        load_features(tmp_path / "two.safetensors")
    np.save(tmp_path / "flat.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"flat.npy has the shape \(3,\)"):
        load_features(tmp_path / "flat.npy")
    (tmp_path / "f.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="f.pt is neither a .npy nor a .safetensors file"):
        load_features(tmp_path / "f.pt")
