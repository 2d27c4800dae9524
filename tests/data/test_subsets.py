import numpy as np
import pytest

from headshare_hf.data.subsets import split_off, stratified_order, take_samples


def test_every_beginning_keeps_the_shares():
    labels = np.repeat([0, 1, 2], [600, 300, 30])
    order = stratified_order(labels, seed=0)
    assert sorted(order) == list(range(930))
    for count in (31, 93, 310, 700):
        expected = np.array([600, 300, 30]) * count / 930
        assert np.abs(np.bincount(labels[order[:count]], minlength=3) - expected).max() <= 1


def test_order_is_that_of_the_seed():
    labels = np.arange(100) % 4
    assert np.array_equal(stratified_order(labels, 1), stratified_order(labels, 1))
    assert not np.array_equal(stratified_order(labels, 1), stratified_order(labels, 2))


def test_parts_are_disjoint_complete_and_stratified(make_split):
    dataset = make_split(40, ("a", "b", "c", "d")).add_column("row", list(range(40)))
    rest, held_out = split_off(dataset, 0.2, seed=3)
    assert sorted(rest["row"][:] + held_out["row"][:]) == list(range(40))
    assert np.bincount(held_out["label"][:]).tolist() == [2, 2, 2, 2]
    assert held_out["row"][:] == sorted(held_out["row"][:])
    assert split_off(dataset, 0.2, seed=3)[1]["row"][:] == held_out["row"][:]
    assert split_off(dataset, 0.2, seed=4)[1]["row"][:] != held_out["row"][:]


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5])
def test_fraction_out_of_range(make_split, fraction):
    with pytest.raises(ValueError, match="it must lie between 0 and 1"):
        split_off(make_split(), fraction, seed=0)


def test_fraction_that_takes_nothing_or_a_whole_class(make_split):
    with pytest.raises(ValueError, match="`validation_fraction` 0.01 of 12 images is none"):
        split_off(make_split(), 0.01, seed=0)
    with pytest.raises(ValueError, match="takes all images of class 'c'"):
        split_off(make_split(label=[0] * 6 + [1] * 5 + [2]), 0.7, seed=0)


def test_samples_keep_shares_and_order(make_split):
    dataset = make_split(30).add_column("row", list(range(30)))
    few = take_samples(dataset, 6, seed=0)
    assert np.bincount(few["label"][:]).tolist() == [2, 2, 2]
    assert few["row"][:] == sorted(few["row"][:])
    assert take_samples(dataset, None, seed=0) is dataset and take_samples(dataset, 99, seed=0) is dataset
    with pytest.raises(ValueError, match="`max_samples` is 0; it must be at least 1"):
        take_samples(dataset, 0, seed=0)
