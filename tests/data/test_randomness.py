import random

import numpy as np
import pytest
import torch

from headshare_hf.data.randomness import _splitmix, device_bits, random_bits, random_integers, seeded_generators


def test_splitmix_gives_the_published_sequence():
    found = _splitmix(np.array([1234567], dtype=np.uint64), np.arange(1, 4, dtype=np.uint64))
    assert found.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_bits_of_a_sample_do_not_depend_on_its_neighbors():
    rows = np.arange(1000)
    together = random_bits(3, 2, rows, 1)
    order = np.random.default_rng(0).permutation(1000)
    assert np.array_equal(random_bits(3, 2, rows[order], 1), together[order])
    assert random_bits(3, 2, np.array([17]), 1)[0] == together[17]


@pytest.mark.parametrize("seed", [0, 3, -3, 2**63 + 1])
def test_bits_on_a_device_are_the_same(seed):
    rows = torch.tensor([0, 1, 17, 10**7, 2**40])
    found = device_bits(seed, 2, rows, 1).numpy().view(np.uint64)
    assert np.array_equal(found, random_bits(seed, 2, rows.numpy(), 1))


@pytest.mark.parametrize("other", [(4, 2, 1), (3, 3, 1), (3, 2, 0), (2, 3, 1), (-3, 2, 1)])
def test_seed_epoch_and_stream_all_matter(other):
    rows = np.arange(1000)
    seed, epoch, stream = other
    left, right = random_bits(3, 2, rows, 1), random_bits(seed, epoch, rows, stream)
    assert (left != right).all()
    correlation = np.corrcoef(left.astype(float), right.astype(float))[0, 1]
    assert abs(correlation) < 0.1


def test_integers_are_uniform():
    counts = np.bincount(random_integers(9, 0, 0, np.arange(90_000), 0))
    # 10,000 expected for each, with a deviation of 94.
    assert len(counts) == 9 and np.abs(counts - 10_000).max() < 400


def test_global_generators_come_back_even_after_an_error():
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    with pytest.raises(RuntimeError), seeded_generators() as seed_all:
        seed_all(2**64 - 1)
        random.random(), np.random.rand(), torch.rand(1)
        raise RuntimeError
    assert states() == before


def test_seeding_covers_all_three_generators():
    with seeded_generators() as seed_all:
        draws = []
        for seed in (5, 5, 6):
            seed_all(seed)
            draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]
    assert all(one != other for one, other in zip(draws[0], draws[2], strict=True))
