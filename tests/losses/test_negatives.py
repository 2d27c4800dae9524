"""Negatives: distinct, of other classes, in the number that was asked for, and the same whenever they are drawn again."""

import pytest
import torch
from allocations import NewElements

from headshare_hf.losses import NegativeSampler
from headshare_hf.losses.negatives import draw_distinct


LABELS = torch.tensor([0] * 9 + [1] * 2 + [2] * 5 + [3] * 14)[
    torch.randperm(30, generator=torch.Generator().manual_seed(0))
]
LARGEST = 14


def _drawn(sampler, index, step):
    """The negatives of each image."""
    contrast = sampler(index, step)
    return torch.stack([contrast.pool[~outside] for outside in contrast.excluded])


@pytest.mark.parametrize("kind", ["exact", "relaxed"])
@pytest.mark.parametrize("count", [1, 7, 30 - LARGEST])
def test_rows_are_distinct_images_of_other_classes(kind, count):
    sampler, index = NegativeSampler(LABELS, count, kind, seed=3), torch.arange(30)
    for step in range(20):
        contrast = sampler(index, step)
        assert contrast.negatives is None and len(contrast.pool.unique()) == len(contrast.pool)
        rows = _drawn(sampler, index, step)
        assert rows.shape == (30, count) and all(len(row.unique()) == count for row in rows)
        assert (LABELS[rows] != LABELS[:, None]).all()
        assert (LABELS[contrast.positives] == LABELS).all()
        assert torch.equal(contrast.positives, index) == (kind == "exact")


@pytest.mark.parametrize("count", [1, 7, 30 - LARGEST])
def test_the_pool_is_larger_than_a_row_by_the_largest_class_alone(count):
    assert len(NegativeSampler(LABELS, count)(torch.tensor([0]), 0).pool) == count + LARGEST


def test_every_image_of_another_class_is_as_likely():
    sampler, index = NegativeSampler(LABELS, 6), torch.arange(30)
    drawn = torch.zeros(30, 30)
    steps = 3000
    for step in range(steps):
        drawn.scatter_add_(1, _drawn(sampler, index, step), torch.ones(30, 6))
    others = LABELS[:, None] != LABELS
    expected = 6 / others.sum(1, keepdim=True)
    deviation = (expected * (1 - expected) / steps).sqrt()
    # Five standard deviations of a frequency; one of 600 exceeds them once in 3,000 repetitions.
    assert (((drawn / steps - expected) / deviation)[others].abs() < 5).all()


def test_every_pair_of_images_of_other_classes_is_as_likely_in_a_row():
    """Every image being as likely would not make every subset so."""
    sampler, index, steps = NegativeSampler(LABELS, 6), torch.arange(30), 3000
    together = torch.zeros(30, 30, 30)
    for step in range(steps):
        chosen = torch.zeros(30, 30).scatter_(1, _drawn(sampler, index, step), 1.0)
        together += chosen[:, :, None] * chosen[:, None]
    others = LABELS[:, None] != LABELS
    pairs = (others[:, :, None] & others[:, None] & ~torch.eye(30, dtype=torch.bool)).float()
    count = others.sum(1)[:, None, None]
    expected = 6 * 5 / (count * (count - 1))
    deviation = (expected * (1 - expected) / steps).sqrt()
    # One of 8,000 pairs exceeds five and a half standard deviations once in 3,000 repetitions.
    assert (((together / steps - expected) / deviation * pairs).abs() < 5.5).all()


def test_a_row_is_not_chosen_by_the_place_of_its_image_in_the_batch():
    sampler, index = NegativeSampler(LABELS, 6), torch.arange(30)
    drawn = _drawn(sampler, index, 0).sort(1).values
    assert len(drawn[LABELS == 3].unique(dim=0)) > 1
    assert torch.equal(_drawn(sampler, index.flip(0), 0).sort(1).values.flip(0), drawn)


def test_every_sequence_of_different_numbers_is_as_likely():
    """Drawn again until enough are different, which is how it goes in large sets."""
    counts, generator = torch.zeros(40, 40), torch.Generator().manual_seed(0)
    for _ in range(16_000):
        first, second = draw_distinct(2, 40, generator)
        counts[first, second] += 1
    assert counts.diagonal().sum() == 0
    expected = 16_000 / (40 * 39)
    statistic = ((counts - expected) ** 2 / expected)[~torch.eye(40, dtype=torch.bool)].sum()
    # Chi-squared with 1,559 degrees of freedom: five standard deviations of 56 each way.
    assert abs(statistic - 1559) < 280


@pytest.mark.parametrize("high", [1000, 16_000, 16_001, 10**9])
def test_different_numbers_of_a_small_or_large_range_are_drawn(high):
    found = draw_distinct(1000, high, torch.Generator().manual_seed(1))
    assert len(found) == len(found.unique()) == 1000 and 0 <= found.min() and found.max() < high
    assert torch.equal(found, draw_distinct(1000, high, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("kind", ["exact", "relaxed", "shared"])
def test_a_draw_costs_the_same_of_any_number_of_images(kind):
    sizes = []
    for images in (4_000, 40_000):
        sampler = NegativeSampler(torch.arange(images) % (images // 5), 100, kind)
        with NewElements() as new:
            sampler(torch.arange(8), 0)
        sizes.append(new.count)
    assert sizes[0] == sizes[1]


def test_every_class_mate_is_as_likely():
    sampler, index = NegativeSampler(LABELS, 6, "relaxed"), torch.arange(30)
    drawn = torch.zeros(30, 30)
    steps = 2000
    for step in range(steps):
        drawn[index, sampler(index, step).positives] += 1
    same = LABELS[:, None] == LABELS
    expected = 1 / same.sum(1, keepdim=True)
    deviation = (expected * (1 - expected) / steps).sqrt()
    assert (((drawn / steps - expected) / deviation)[same].abs() < 5).all()


def test_a_shared_set_leaves_out_each_images_own_class():
    sampler, index = NegativeSampler(LABELS, 10, "shared"), torch.tensor([4, 20, 1])
    contrast = sampler(index, 0)
    assert contrast.negatives is None and len(contrast.pool) == len(contrast.pool.unique()) == 10
    assert torch.equal(contrast.excluded, LABELS[index][:, None] == LABELS[contrast.pool])
    assert torch.equal(contrast.positives, index)


@pytest.mark.parametrize("kind", ["exact", "relaxed", "shared"])
def test_a_draw_depends_on_seed_step_and_image_alone(kind):
    index = torch.tensor([4, 20, 1, 9])
    first = NegativeSampler(LABELS, 10, kind, seed=1)
    torch.rand(5)
    again = NegativeSampler(LABELS, 10, kind, seed=1)(index, 7)
    for left, right in zip(first(index, 7), again, strict=True):
        assert left is right is None or torch.equal(left, right)
    half = first(index[2:], 7)
    assert torch.equal(half.positives, again.positives[2:]) and torch.equal(half.excluded, again.excluded[2:])
    assert torch.equal(half.pool, again.pool)
    assert not torch.equal(first(index, 8).pool, again.pool)
    assert not torch.equal(NegativeSampler(LABELS, 10, kind, seed=2)(index, 7).pool, again.pool)


def test_drawing_leaves_the_generator_of_the_run_alone():
    state = torch.get_rng_state()
    NegativeSampler(LABELS, 10)(torch.tensor([0]), 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_tables_of_the_data_set_are_in_no_checkpoint():
    assert NegativeSampler(LABELS, 10).state_dict() == {}


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="`num_negatives` is 17, but an image of class 3 has only 16 .* at most 16"):
        NegativeSampler(LABELS, 17)
    with pytest.raises(ValueError, match="`num_negatives` is 0; it must be at least 1"):
        NegativeSampler(LABELS, 0)
    with pytest.raises(ValueError, match="unknown kind of negatives 'relax'; allowed: exact, relaxed, shared"):
        NegativeSampler(LABELS, 10, "relax")
    with pytest.raises(ValueError, match="image 2 has label -1"):
        NegativeSampler(torch.tensor([0, 1, -1]), 1)
    with pytest.raises(ValueError, match=r"`labels` has shape \(3, 2\)"):
        NegativeSampler(torch.zeros(3, 2, dtype=torch.long), 1)
    with pytest.raises(ValueError, match="type torch.float32"):
        NegativeSampler(torch.zeros(3), 1)
