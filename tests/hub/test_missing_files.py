"""Repositories and cached files that are missing or damaged: they are named, and nothing is filled in silently."""

import errno
import os

import pytest
from huggingface_hub import HfApi
from published_runs import FACE, push
from toys import resnet, vit

from headshare_hf import HeadShareConfig, HeadShareForImageClassification, HeadShareModel
from headshare_hf.evaluation.face_model import load_face_model
from headshare_hf.models import CENTERS_FILE
from headshare_hf.trainer import load_classifier, load_teacher


BARE, FACES = "alice/bare", "alice/whole"
KINDS = [HeadShareConfig, HeadShareModel, HeadShareForImageClassification]
# What a disk says that is full, read-only, over its quota, forbidden, or has a file in the place of a folder.
LOCAL = [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EDQUOT]


@pytest.fixture(scope="module")
def bare(hub):
    """A repository whose configuration was deleted."""
    push(resnet("resnet8x4"), BARE)
    HfApi().delete_file("config.json", BARE)


@pytest.fixture(scope="module")
def faces(hub):
    push(resnet(**FACE), FACES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_repository_without_a_configuration_is_no_default_model(kind, bare, tmp_path, monkeypatch):
    for _ in range(2):
        with pytest.raises(OSError, match=f"{BARE} has no config.json, or an empty one") as caught:
            kind.from_pretrained(BARE, cache_dir=tmp_path)
        assert "was not reached" not in str(caught.value)
        # The second time from what the cache knows.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("kind", KINDS)
def test_nor_is_one_where_the_cache_cannot_be_written(kind, bare, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file in the place of the folder")
    with pytest.raises(OSError, match=f"{BARE} has no config.json, or an empty one") as caught:
        kind.from_pretrained(BARE, cache_dir=tmp_path / "cache")
    assert "was not reached" not in str(caught.value)


def test_a_face_model_without_a_configuration_is_named(bare):
    with pytest.raises(OSError, match=f"{BARE} has no config.json, or an empty one"):
        load_face_model(BARE)


def _cut(cache, name):
    (path,) = cache.glob(f"models--*/snapshots/*/{name}")
    path.write_bytes(path.read_bytes()[:-100])
    return path


@pytest.mark.parametrize("name", ["model.safetensors", CENTERS_FILE])
def test_a_truncated_file_of_the_cache_is_named(name, faces, tmp_path):
    place = {"cache_dir": tmp_path}
    HeadShareForImageClassification.from_pretrained(FACES, **place)
    path = _cut(tmp_path, name)
    with pytest.raises(ValueError, match=f"^{path} is damaged or cut off .*or download it again with `force_download"):
        HeadShareForImageClassification.from_pretrained(FACES, **place)
    # What the message says, helps.
    HeadShareForImageClassification.from_pretrained(FACES, force_download=True, **place)
    HeadShareForImageClassification.from_pretrained(FACES, **place)


@pytest.mark.parametrize("load", [load_classifier, load_teacher])
def test_a_truncated_teacher_of_another_package_is_named(load, tmp_path):
    vit().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"^{path} is damaged or cut off .*; save it again, or download it again"):
        load(str(tmp_path))


@pytest.mark.parametrize("number", LOCAL, ids=errno.errorcode.get)
@pytest.mark.parametrize("load", [*(kind.from_pretrained for kind in KINDS), load_classifier, load_face_model])
def test_errors_of_the_disk_are_not_taken_for_silence_of_the_hub(load, number, faces, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
    for place in ("huggingface_hub.constants.HF_HUB_CACHE", "transformers.utils.hub.constants.HF_HUB_CACHE"):
        monkeypatch.setattr(place, str(tmp_path / "cache"))
    with pytest.raises(OSError) as caught:
        load(FACES)
    assert "was not reached" not in str(caught.value)
    assert number in {error.errno for error in _causes(caught.value) if isinstance(error, OSError)}


def _causes(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
