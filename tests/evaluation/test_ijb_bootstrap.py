"""The bootstrap over templates: each draw is the protocol with its pairs repeated, and the spread is that of templates."""

import numpy as np
import pytest

import headshare_hf.evaluation.ijb_bootstrap as ijb_bootstrap
from headshare_hf.evaluation import Roc, TemplateBootstrap
from headshare_hf.evaluation.ijb_bootstrap import percentile_interval


FARS = (1e-6, 1e-3, 0.01, 0.07, 0.1, 0.5, 1)


def protocol(num_templates, num_pairs, seed=0):
    generator = np.random.default_rng(seed)
    subjects = generator.integers(0, num_templates // 4, num_templates)
    first, second = generator.integers(0, num_templates, (2, num_pairs))
    first, second = first[first != second], second[first != second]
    same = subjects[first] == subjects[second]
    scores = generator.normal(0, 1, len(first)) + 2 * same
    return first, second, same, scores


@pytest.mark.parametrize("digits", [0, 1, 9])
@pytest.mark.parametrize(("entries", "pairs"), [(1, 1), (100, 50), (1 << 22, 1024)])
def test_a_draw_is_the_protocol_with_repeated_pairs(digits, entries, pairs, monkeypatch):
    monkeypatch.setattr(ijb_bootstrap, "_BLOCK_ENTRIES", entries)
    monkeypatch.setattr(ijb_bootstrap, "_BLOCK_PAIRS", pairs)
    first, second, same, scores = protocol(60, 4000)
    scores = scores.round(digits)
    bootstrap = TemplateBootstrap(first, second, same, 60, num_resamples=12, seed=5)
    assert (bootstrap.multiplicity.sum(axis=1) == 60).all()
    found = bootstrap.tar_at_most(scores, FARS)
    for drawn, row in zip(bootstrap.multiplicity, found, strict=True):
        repeats = drawn[first] * drawn[second]
        roc = Roc.from_scores(np.repeat(scores, repeats), np.repeat(same, repeats))
        assert row.tolist() == [roc.tar_at_far(far, "at_most") for far in FARS]


def test_enough_impostors_are_looked_at(monkeypatch):
    """The top impostor pairs share few templates, so that a draw that lacks these needs many more pairs."""
    gallery, probes = 40, 1500
    first = np.repeat(np.arange(gallery), probes)
    second = np.tile(np.arange(gallery, gallery + probes), gallery)
    same = (second - gallery) % gallery == first
    scores = np.where(first < 6, 10.0, 0.0) + np.random.default_rng(0).random(len(first)) + 5 * same
    bootstrap = TemplateBootstrap(first, second, same, gallery + probes, num_resamples=10, seed=1)
    looked_at = []
    take = TemplateBootstrap._top
    monkeypatch.setattr(
        TemplateBootstrap, "_top", lambda *arguments: looked_at.append(arguments[-1]) or take(*arguments)
    )
    found = bootstrap.tar_at_most(scores, (0.1,))
    assert len(looked_at) > 1 and looked_at[1] > looked_at[0]
    for drawn, (tar,) in zip(bootstrap.multiplicity, found, strict=True):
        repeats = drawn[first] * drawn[second]
        roc = Roc.from_scores(np.repeat(scores, repeats), np.repeat(same, repeats))
        assert tar == roc.tar_at_far(0.1, "at_most")


def test_spread_is_that_of_templates_and_not_of_pairs():
    """One template in all pairs of a kind: pairs seem many, but the number of templates decides."""
    generator = np.random.default_rng(0)
    gallery, probes = 30, 300
    first = np.repeat(np.arange(gallery), probes)
    second = np.tile(np.arange(probes) + gallery, gallery)
    same = (second - gallery) % gallery == first
    # Half of the persons are always recognised, and half never are.
    scores = generator.random(len(first)) + 2 * (same & (first % 2 == 0))
    values = TemplateBootstrap(first, second, same, gallery + probes, 200, seed=0).tar_at_most(scores, (1e-3,))
    of_pairs = np.sqrt(0.25 / same.sum())
    assert 1.7 * of_pairs < values.std() < 0.2
    assert abs(values.mean() - 0.5) < 0.03


def test_percentile_interval():
    low, high = percentile_interval(np.arange(101) / 100, 0.9)
    assert (low, high) == pytest.approx((0.05, 0.95))
    for confidence in (0, 1):
        with pytest.raises(ValueError, match=f"`confidence` is {confidence}; it must be between 0 and 1"):
            percentile_interval(np.arange(3), confidence)


def test_refusals():
    pairs = np.array([0, 1]), np.array([2, 3]), np.array([True, False])
    with pytest.raises(ValueError, match="`num_resamples` is 1; an interval needs at least 2"):
        TemplateBootstrap(*pairs, 4, num_resamples=1, seed=0)
    with pytest.raises(ValueError, match="draw 0 has no genuine pair left; the protocol is too small"):
        TemplateBootstrap(*pairs, 4, num_resamples=9, seed=0).tar_at_most(np.array([1.0, 0.0]), (0.1,))
    first = np.arange(8).repeat(2)
    same = np.arange(16) < 15
    refused = TemplateBootstrap(first, first, same, 9, num_resamples=50, seed=0)
    with pytest.raises(ValueError, match="draw .* has no impostor pair left; the protocol is too small"):
        refused.tar_at_most(np.zeros(16), (0.1,))
