"""Thresholds from pairs, and into the configuration of a model."""

import json

import numpy as np
import pytest
from toys import resnet

from headshare_hf import HeadShareConfig
from headshare_hf.evaluation import Roc
from headshare_hf.evaluation.thresholds import calibrate_thresholds, store_thresholds


def _roc(num_impostor: int, top: float = 0.6) -> Roc:
    impostor = np.linspace(-0.5, top, num_impostor)
    genuine = np.linspace(0.3, 0.9, 50)
    is_same = np.arange(num_impostor + 50) >= num_impostor
    return Roc.from_scores(np.concatenate([impostor, genuine]), is_same)


def test_each_threshold_keeps_its_far():
    roc = _roc(1500)
    entries = calibrate_thresholds(roc, "lfw", flip=True)
    assert [entry["far"] for entry in entries] == [1e-2, 1e-3]
    for entry in entries:
        assert roc.far_at_threshold(entry["similarity"]) <= entry["far"]
        assert entry["similarity"] == roc.threshold_at_far(entry["far"], "at_most")
        assert {key: entry[key] for key in ("rule", "set", "num_impostor", "flip")} == {
            "rule": "at_most",
            "set": "lfw",
            "num_impostor": 1500,
            "flip": True,
        }
    HeadShareConfig(verification_thresholds=entries)


def test_what_cannot_be_measured_or_accepts_nothing_is_left_out():
    assert calibrate_thresholds(_roc(99), "lfw", flip=False) == []
    tied = Roc.from_scores(np.full(300, 0.5), np.arange(300) < 100)
    assert calibrate_thresholds(tied, "lfw", flip=False) == []


def test_nothing_else_in_the_configuration_changes(tmp_path):
    resnet(num_labels=3).save_pretrained(tmp_path)
    path, files = tmp_path / "config.json", sorted(tmp_path.iterdir())
    before = {**json.loads(path.read_text()), "custom": {"kept": [1, 2]}}
    path.write_text(json.dumps(before))
    store_thresholds(tmp_path, calibrate_thresholds(_roc(1500), "old", flip=True))
    entries = calibrate_thresholds(_roc(1500, top=0.5), "new", flip=False)
    store_thresholds(str(tmp_path), entries)
    after = json.loads(path.read_text())
    assert after == {**before, "verification_thresholds": entries}
    assert HeadShareConfig.from_pretrained(tmp_path).verification_thresholds == entries
    assert sorted(tmp_path.iterdir()) == files


def test_a_hub_id_is_refused():
    with pytest.raises(ValueError, match="someone/model is none; download the model first, .*--local-dir FOLDER"):
        store_thresholds("someone/model", calibrate_thresholds(_roc(1500), "lfw", flip=True))


def test_nothing_to_store_is_refused_and_wrong_entries_leave_the_file(tmp_path):
    resnet().save_pretrained(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match="no threshold can be stored in .*needs at least 100 pairs of two people"):
        store_thresholds(tmp_path, [])
    with pytest.raises(ValueError, match="similarity 2.0"):
        store_thresholds(tmp_path, [{**calibrate_thresholds(_roc(200), "lfw", flip=True)[0], "similarity": 2.0}])
    assert (tmp_path / "config.json").read_bytes() == before
