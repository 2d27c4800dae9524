"""Folders in which a file is missing or damaged: it is named, and nothing is filled in silently."""

import json

import pytest
from safetensors import SafetensorError
from toys import resnet

from headshare_hf import HeadShareConfig, HeadShareForImageClassification, HeadShareModel
from headshare_hf.models import CENTERS_FILE


KINDS = [HeadShareConfig, HeadShareModel, HeadShareForImageClassification]


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_a_configuration_is_no_default_model(kind, tmp_path):
    resnet("resnet8x4").save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(OSError, match=f"{tmp_path} has no config.json, or an empty one; save the model again with"):
        kind.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(OSError, match="has no config.json, or an empty one"):
        kind.from_pretrained(tmp_path)


def test_a_missing_configuration_of_a_subfolder_is_named(tmp_path):
    resnet().save_pretrained(tmp_path)
    (tmp_path / "inner").mkdir()
    with pytest.raises(OSError, match=f"{tmp_path} has no inner/config.json, or an empty one"):
        HeadShareForImageClassification.from_pretrained(tmp_path, subfolder="inner")


def test_a_configuration_that_is_given_needs_no_file(tmp_path):
    model = resnet()
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    again = HeadShareForImageClassification.from_pretrained(tmp_path, config=model.config)
    assert again.config.backbone == "resnet8"


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("name", ["model.safetensors", CENTERS_FILE])
def test_a_truncated_file_is_named(name, tmp_path):
    resnet(head_type="arcface").save_pretrained(tmp_path)
    _cut(tmp_path / name)
    with pytest.raises(ValueError, match=f"^{tmp_path / name} is damaged or cut off .*; save it again, or") as caught:
        HeadShareForImageClassification.from_pretrained(tmp_path)
    assert isinstance(caught.value.__cause__, SafetensorError)


def test_a_truncated_shard_is_named_and_no_other_file(tmp_path):
    resnet("resnet14").save_pretrained(tmp_path, max_shard_size="100KB")
    (tmp_path / "auxiliary.safetensors").write_bytes(b"of somebody else")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[-1]
    _cut(shard)
    with pytest.raises(ValueError, match=f"^{shard} is damaged or cut off"):
        HeadShareForImageClassification.from_pretrained(tmp_path)


def test_truncated_centers_do_not_stop_who_needs_embeddings(tmp_path):
    resnet(head_type="arcface").save_pretrained(tmp_path)
    _cut(tmp_path / CENTERS_FILE)
    assert HeadShareModel.from_pretrained(tmp_path).config.head_type == "arcface"
