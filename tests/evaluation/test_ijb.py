"""Templates, scores and TAR of the IJB 1:1 protocol: against stored numbers, and against loops written out."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_data import golden_path, load_golden
from ijb_files import write_protocol

import headshare_hf.evaluation.ijb_templates as ijb_templates
from headshare_hf.data import IjbProtocol
from headshare_hf.evaluation import IJB_FARS, Roc, evaluate_ijb, pool_templates, score_pairs, tar_key


SETTINGS = {
    "plain": {"flip": False, "norm": False, "detector_score": False},
    "flip_det": {"flip": True, "norm": False, "detector_score": True},
    "flip_norm_det": {"flip": True, "norm": True, "detector_score": True},
}


@pytest.fixture(scope="module")
def golden():
    return IjbProtocol.read(golden_path("face/ijb_small")), load_golden("face/ijb_small/expected")


@pytest.fixture
def small(tmp_path):
    features = write_protocol(tmp_path)
    return IjbProtocol.read(tmp_path), np.array(features)


def features_of(golden, setting):
    features = golden["image_features"].numpy()
    return features if SETTINGS[setting]["flip"] else features[:, : features.shape[1] // 2]


@pytest.mark.parametrize("setting", SETTINGS)
def test_numbers_of_insightface(setting, golden):
    protocol, expected = golden
    features = features_of(expected, setting)
    assert np.array_equal(protocol.detector_scores, expected["detector_score"].numpy())
    templates = pool_templates(features, protocol, **SETTINGS[setting])
    assert np.abs(templates - expected[f"{setting}.template_features"].numpy()).max() < 1e-7
    result = evaluate_ijb(features, protocol, **SETTINGS[setting], num_resamples=0)
    assert np.abs(result.scores - expected[f"{setting}.score"].numpy()).max() < 1e-7
    tars = [result.metrics[tar_key(far, "nearest")] for far in IJB_FARS]
    assert tars == expected[f"{setting}.tar"].tolist()
    assert result.metrics["auc"] == pytest.approx(expected[f"{setting}.auc"].item(), abs=1e-7)
    assert result.intervals == {}


def pool_by_loops(features, protocol, flip, norm, detector_score):
    half = features.shape[1] // 2
    values = features[:, :half] + features[:, half:] if flip else features
    templates = []
    for template in range(protocol.num_templates):
        media = {}
        for image in np.flatnonzero(protocol.image_template == template):
            value = values[image].astype(np.float64)
            value = value if norm else value / np.linalg.norm(value)
            value = value * float(protocol.detector_scores[image]) if detector_score else value
            media.setdefault(protocol.image_media[image], []).append(value)
        total = sum(np.mean(group, axis=0) for group in media.values())
        templates.append(total / np.linalg.norm(total))
    return np.array(templates)


@pytest.mark.parametrize("block", [7, 16384])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("detector_score", [True, False])
def test_pooling_written_out(small, flip, norm, detector_score, block, monkeypatch):
    monkeypatch.setattr(ijb_templates, "_IMAGE_ROWS", block)
    protocol, features = small
    options = {"flip": flip, "norm": norm, "detector_score": detector_score}
    before = features.copy()
    found = pool_templates(features, protocol, **options)
    assert np.allclose(found, pool_by_loops(features.astype(np.float64), protocol, **options), atol=1e-12)
    assert np.array_equal(features, before)
    assert np.allclose(pool_templates(torch.from_numpy(features), protocol, **options), found, atol=1e-15)


def test_frames_of_a_video_count_once(small):
    protocol, features = small
    counts = np.bincount(protocol.image_template)
    assert max(np.bincount(protocol.image_media)) > 2 and max(counts) > 3, "the protocol has no videos"
    one_medium = replace(protocol, image_media=np.zeros_like(protocol.image_media))
    apart = replace(protocol, image_media=np.arange(protocol.num_images, dtype=np.int32))
    # The mean over one medium and the sum over many point the same way; the real media lie in between.
    a, b, c = (pool_templates(features, p) for p in (one_medium, apart, protocol))
    assert np.allclose(a, b) and not np.allclose(a, c)


@pytest.mark.parametrize("pair_rows", [7, 1 << 16])
@pytest.mark.parametrize("entries", [1, 100, 1 << 25])
def test_pairs_written_out(small, entries, pair_rows, monkeypatch):
    monkeypatch.setattr(ijb_templates, "_BLOCK_ENTRIES", entries)
    monkeypatch.setattr(ijb_templates, "_PAIR_ROWS", pair_rows)
    protocol, features = small
    templates = pool_templates(features, protocol)
    found = score_pairs(templates, protocol.pair_first, protocol.pair_second)
    expected = [templates[a] @ templates[b] for a, b in zip(protocol.pair_first, protocol.pair_second, strict=True)]
    assert found.dtype == np.float64 and np.allclose(found, expected, atol=1e-14)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_memory_map_gives_back_what_was_read(small, tmp_path, mode):
    protocol, features = small
    mapped = np.load(tmp_path / "features.npy", mmap_mode=mode)
    expected = features.copy()
    if mode != "r":
        mapped[5], expected[5] = 3, 3
    assert np.array_equal(pool_templates(mapped, protocol), pool_templates(expected, protocol))
    resident = _resident(tmp_path / "features.npy")
    assert resident is None or (resident > 0) == (mode == "c")
    assert np.array_equal(mapped, expected), "a change of the caller is lost"


def _resident(path):
    """What a process holds of a mapped file, in kB, where Linux tells."""
    maps = Path("/proc/self/smaps")
    if not maps.exists():
        return None
    parts = maps.read_text().split(str(path))[1:]
    return sum(int(re.search(r"\nRss: +(\d+) kB", part)[1]) for part in parts)


def test_result_has_both_rules_and_intervals(small):
    protocol, features = small
    result = evaluate_ijb(features, protocol, fars=(1e-2, 0.25), num_resamples=40)
    assert list(result.metrics) == [
        "tar@far=1e-2/nearest",
        "tar@far=2.5e-1/nearest",
        "tar@far=1e-2/at_most",
        "tar@far=2.5e-1/at_most",
        "auc",
        "eer",
    ]
    roc = Roc.from_scores(result.scores, protocol.is_same)
    assert result.metrics["tar@far=2.5e-1/at_most"] == roc.tar_at_far(0.25, "at_most")
    assert (result.metrics["auc"], result.metrics["eer"]) == (roc.auc, roc.eer)
    assert list(result.intervals) == ["tar@far=1e-2/at_most", "tar@far=2.5e-1/at_most"]
    low, high = result.intervals["tar@far=2.5e-1/at_most"]
    assert low < result.metrics["tar@far=2.5e-1/at_most"] <= high
    again = evaluate_ijb(features, protocol, fars=(1e-2, 0.25), num_resamples=40)
    other = evaluate_ijb(features, protocol, fars=(1e-2, 0.25), num_resamples=40, seed=1)
    assert again.intervals == result.intervals != other.intervals


def test_refusals(small):
    protocol, features = small
    with pytest.raises(ValueError, match=r"features have shape \(159, 16\); the protocol has 160 images"):
        evaluate_ijb(features[1:], protocol)
    with pytest.raises(ValueError, match=r"features have shape \(160,\)"):
        evaluate_ijb(features[:, 0], protocol)
    with pytest.raises(ValueError, match="features have 15 columns, which is odd; with flip=True the left half"):
        evaluate_ijb(features[:, 1:], protocol)
    with pytest.raises(ValueError, match="`fars` is empty"):
        evaluate_ijb(features, protocol, fars=())
    with pytest.raises(ValueError, match="`far` is 2; it must be a fraction"):
        evaluate_ijb(features, protocol, fars=(2,))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("block", [7, 16384])
def test_features_that_are_not_finite_are_named(small, value, block, monkeypatch):
    monkeypatch.setattr(ijb_templates, "_IMAGE_ROWS", block)
    protocol, features = small
    features[[33, 50], 5] = value
    with pytest.raises(
        ValueError, match="the feature in row 33 is not finite; look at the network, and at image '34.jpg'"
    ):
        evaluate_ijb(features, protocol)


def test_features_without_a_direction_are_named(small):
    protocol, features = small
    features[90] = 0
    with pytest.raises(
        ValueError, match="row 90 is zero and has no direction; use norm=True, or look at image '91.jpg'"
    ):
        evaluate_ijb(features, protocol, norm=False)
    template = protocol.image_template[90]
    features[protocol.image_template == template] = 0
    number = protocol.template_ids[template]
    with pytest.raises(ValueError, match=f"the features of template {number} add up to zero"):
        evaluate_ijb(features, protocol)
    with pytest.raises(ValueError, match=r"the features of template \d+ are too large to add up; divide all of them"):
        evaluate_ijb(np.full_like(features, 1e200, dtype=np.float64), protocol)
