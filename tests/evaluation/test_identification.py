"""Ranks and TPIR of the IJB 1:N protocol, against a slow version written out and against cases done by hand."""

import numpy as np
import pytest
import torch
from ijb_files import ProtocolSize, write_protocol

import headshare_hf.evaluation.identification as identification
from headshare_hf.data import IjbIdentification, IjbProtocol
from headshare_hf.evaluation import evaluate_identification, pool_templates, probe_rates, reduce_probes
from headshare_hf.evaluation.identification import search


SIZE = ProtocolSize(images=700, templates=260, gallery=24, pairs=900, genuine=80, embedding_size=6, noise=1.3)


def rates_by_loops(scores, mates, ranks, fpirs):
    """Every probe and every threshold on its own."""
    mated = [(row, mate) for row, mate in zip(scores, mates, strict=True) if mate >= 0]
    others = [row for row, mate in zip(scores, mates, strict=True) if mate < 0]
    result = {}
    for k in ranks:
        found = [sum(score >= row[mate] for score in np.delete(row, mate)) < k for row, mate in mated]
        result[f"rank{k}"] = np.mean(found)
    for fpir in fpirs:
        best = 0.0
        for threshold in [*np.unique(scores), np.inf]:
            if np.mean([row.max() >= threshold for row in others]) <= fpir:
                hits = [
                    row[mate] >= threshold and all(row[mate] > score for score in np.delete(row, mate))
                    for row, mate in mated
                ]
                best = max(best, np.mean(hits))
        result[f"tpir@fpir={fpir:g}"] = best
    return result


@pytest.mark.parametrize("digits", [0, 1, 9])
@pytest.mark.parametrize("seed", range(5))
def test_rates_written_out(seed, digits):
    generator = np.random.default_rng(seed)
    scores = generator.normal(0, 1, (60, 9))
    mates = generator.integers(-1, 9, 60) * generator.integers(0, 2, 60) - 1
    mates = mates.clip(-1)
    scores[np.arange(60), mates.clip(0)] += 2 * (mates >= 0)
    scores = scores.round(digits)
    fpirs = (0, 0.01, 0.1, 0.25, 0.5, 1)
    found = probe_rates(*reduce_probes(scores, mates), (1, 2, 5), fpirs)
    assert found == rates_by_loops(scores, mates, (1, 2, 5), fpirs)


@pytest.mark.parametrize("block", [1, 1 << 25])
@pytest.mark.parametrize("name", ["ijbb", "ijbc"])
def test_protocol_written_out(name, block, tmp_path, monkeypatch):
    monkeypatch.setattr(identification, "_BLOCK_ENTRIES", block)
    features = write_protocol(tmp_path, SIZE, name=name)
    protocol = IjbProtocol.read(tmp_path)
    files = IjbIdentification.read(protocol)
    found = evaluate_identification(features, protocol, files, fpirs=(0.05, 0.2), ranks=(1, 3))
    templates = pool_templates(features, protocol)
    galleries = {**files.galleries}
    galleries["joined"] = tuple(np.concatenate(part) for part in zip(*galleries.values(), strict=True))
    for gallery, (rows, subjects) in galleries.items():
        mates = [subjects.tolist().index(s) if s in subjects else -1 for s in files.probe_subjects]
        scores = templates[files.probe_templates] @ templates[rows].T
        fpirs = () if gallery == "joined" else (0.05, 0.2)
        assert found[gallery] == rates_by_loops(scores, mates, (1, 3), fpirs)
    first, second = (found[gallery] for gallery in files.galleries)
    assert found["mean"] == {key: (first[key] + second[key]) / 2 for key in first}
    assert list(found) == [*files.galleries, "mean", "joined"]
    assert 0.1 < found["mean"]["rank1"] < 1 and 0 < found["mean"]["tpir@fpir=0.2"] < found["mean"]["rank1"]


def _resampled(features, protocol, files, draws, ranks, fpirs):
    """The rates of draws, each a protocol of its own with its probes written out."""
    found = []
    for drawn in draws:
        sample = IjbIdentification(files.galleries, files.probe_templates[drawn], files.probe_subjects[drawn])
        found.append(evaluate_identification(features, protocol, sample, ranks=ranks, fpirs=fpirs))
    return found


def test_intervals_are_those_of_probes_drawn_again(tmp_path):
    features = write_protocol(tmp_path, SIZE)
    protocol = IjbProtocol.read(tmp_path)
    files = IjbIdentification.read(protocol)
    ranks, fpirs, count = (1, 3), (0.05, 0.2), len(files.probe_templates)
    options = {"ranks": ranks, "fpirs": fpirs, "num_resamples": 25, "confidence": 0.8, "seed": 4}
    found = evaluate_identification(features, protocol, files, **options)
    generator = np.random.default_rng(4)
    draws = [generator.integers(count, size=count) for _ in range(25)]
    literal = _resampled(features, protocol, files, draws, ranks, fpirs)
    plain = evaluate_identification(features, protocol, files, ranks=ranks, fpirs=fpirs)
    for gallery, rates in plain.items():
        assert list(found[gallery])[: len(rates)] == list(rates) and len(found[gallery]) == 3 * len(rates)
        for key, value in rates.items():
            low, high = np.quantile([draw[gallery][key] for draw in literal], [0.1, 0.9])
            assert (found[gallery][f"{key}/low"], found[gallery][f"{key}/high"]) == pytest.approx((low, high))
            assert found[gallery][key] == value
    assert found["mean"]["rank1/low"] < found["mean"]["rank1/high"]
    assert evaluate_identification(features, protocol, files, **{**options, "seed": 5}) != found


def test_a_draw_needs_both_kinds_of_probes(tmp_path):
    features = write_protocol(tmp_path, SIZE)
    protocol = IjbProtocol.read(tmp_path)
    files = IjbIdentification.read(protocol)
    (_, one), (_, other) = files.galleries.values()
    rows = [np.flatnonzero(np.isin(files.probe_subjects, subjects))[0] for subjects in (one, other)]
    two = IjbIdentification(files.galleries, files.probe_templates[rows], files.probe_subjects[rows])
    with pytest.raises(ValueError, match=r"in draw \d+, .*person in the gallery.*too small to bootstrap, use num_re"):
        evaluate_identification(features, protocol, two, num_resamples=50)
    with pytest.raises(ValueError, match="`num_resamples` is 1; an interval needs at least 2"):
        evaluate_identification(features, protocol, files, num_resamples=1)
    with pytest.raises(ValueError, match="`confidence` is 1; it must be between 0 and 1"):
        evaluate_identification(features, protocol, files, num_resamples=2, confidence=1)


def test_by_hand():
    scores = torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.4, 0.6], [0.3, 0.3, 0.1], [0.8, 0.0, 0.1], [0.2, 0.7, 0.1]])
    mates = torch.tensor([0, 0, 1, -1, -1])
    kept, ranks = reduce_probes(scores, mates)
    assert ranks.tolist() == [1, 2, 2, 0, 0] and kept == pytest.approx([0.9, 0.5, 0.3, 0.8, 0.7])
    # Of the two probes without a person one may reach the threshold: it lies above 0.7.
    assert probe_rates(kept, ranks, (1, 2), (0, 0.5, 1)) == pytest.approx(
        {"rank1": 1 / 3, "rank2": 1, "tpir@fpir=0": 1 / 3, "tpir@fpir=0.5": 1 / 3, "tpir@fpir=1": 1 / 3}
    )


def test_ties_count_against_the_probe():
    kept, ranks = reduce_probes(np.full((4, 5), 0.5), np.array([2, 0, 4, -1]))
    assert ranks.tolist() == [5, 5, 5, 0]
    assert probe_rates(kept, ranks, (1, 4, 5), (1,)) == {"rank1": 0, "rank4": 0, "rank5": 1, "tpir@fpir=1": 0}
    # The own entry is first, but as high as what a probe of nobody reaches.
    kept, ranks = reduce_probes(np.array([[0.5, 0.1], [0.2, 0.5]]), np.array([0, -1]))
    assert probe_rates(kept, ranks, (1,), (0, 1)) == {"rank1": 1, "tpir@fpir=0": 0, "tpir@fpir=1": 1}


def test_refused_batches():
    with pytest.raises(ValueError, match=r"scores have shape \(3,\) and mates \(3,\); expected"):
        reduce_probes(np.zeros(3), np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match=r"scores have shape \(3, 2\) and mates \(2,\)"):
        reduce_probes(np.zeros((3, 2)), np.zeros(2, dtype=int))
    with pytest.raises(ValueError, match="mates have dtype torch.float64; expected integers"):
        reduce_probes(np.zeros((3, 2)), np.zeros(3))
    for mate in (2, -2):
        with pytest.raises(ValueError, match=f"mate {mate} of probe 1 in the batch is no entry of a gallery of 2"):
            reduce_probes(np.zeros((3, 2)), np.array([0, mate, 1]))
    with pytest.raises(ValueError, match="scores of probe 2 in the batch are NaN"):
        reduce_probes(np.array([[0.0, 1], [0, 1], [0, np.nan]]), np.array([0, -1, 1]))


def test_refused_rates():
    kept, ranks = np.array([0.5, 0.4]), np.array([1, 0])
    with pytest.raises(ValueError, match="rank 0 does not exist"):
        probe_rates(kept, ranks, (0,))
    with pytest.raises(ValueError, match=r"FPIR 2 is outside of \[0, 1\]"):
        probe_rates(kept, ranks, (1,), (2,))
    with pytest.raises(ValueError, match="no probe has its person in the gallery"):
        probe_rates(kept[1:], ranks[1:])
    with pytest.raises(ValueError, match=r"every probe has its person in the gallery.*use fpirs=\(\) for ranks alone"):
        probe_rates(kept[:1], ranks[:1])


def test_a_person_is_in_a_gallery_once():
    with pytest.raises(ValueError, match="person 4 is in the gallery twice"):
        search(np.eye(2), np.array([4, 5]), np.eye(3)[:, :2], np.array([4, 5, 4]))
