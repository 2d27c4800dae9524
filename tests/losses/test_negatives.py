"""Negatives: distinct, of other classes, in the number that was asked for, and the same whenever they are drawn again."""

import pytest
import torch

from headshare_hf.losses import NegativeSampler


LABELS = torch.tensor([0] * 9 + [1] * 2 + [2] * 5 + [3] * 14)[
    torch.randperm(30, generator=torch.Generator().manual_seed(0))
]
LARGEST = 14


def _drawn(sampler, index, step):
    """Images instead of positions in the pool."""
    contrast = sampler(index, step)
    return contrast.pool[contrast.negatives]


@pytest.mark.parametrize("kind", ["exact", "relaxed"])
@pytest.mark.parametrize("count", [1, 7, 30 - LARGEST])
def test_rows_are_distinct_images_of_other_classes(kind, count):
    sampler, index = NegativeSampler(LABELS, count, kind, seed=3), torch.arange(30)
    for step in range(20):
        contrast = sampler(index, step)
        assert contrast.excluded is None and len(contrast.pool.unique()) == len(contrast.pool)
        rows = contrast.pool[contrast.negatives]
        assert rows.shape == (30, count) and all(len(row.unique()) == count for row in rows)
        assert (LABELS[rows] != LABELS[:, None]).all()
        assert (LABELS[contrast.positives] == LABELS).all()
        assert torch.equal(contrast.positives, index) == (kind == "exact")


@pytest.mark.parametrize(("count", "size"), [(1, 15), (7, 21), (15, 30), (16, 30)])
def test_the_pool_is_no_larger_than_twice_the_negatives_where_classes_allow(count, size):
    assert len(NegativeSampler(LABELS, count)(torch.tensor([0]), 0).pool) == size


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
    for name in ("positives", "negatives", "excluded"):
        left, right = getattr(half, name), getattr(again, name)
        assert left is right is None or torch.equal(left, right[2:])
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
