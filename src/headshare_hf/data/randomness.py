"""
Random numbers that depend on nothing but what they are for.

Every draw is a pure function of (seed, epoch, sample index, stream): a hash instead of a generator with a state. So an
image is augmented the same way whatever the number of workers and processes, the batch size and the order, and also
when a run is resumed in the middle of an epoch. The hash is splitmix64 (Steele, Lea and Flood, "Fast Splittable
Pseudorandom Number Generators", OOPSLA 2014).
"""

import contextlib
import random
from collections.abc import Callable, Iterator

import numpy as np
import torch


_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def random_bits(seed: int, epoch: int, indices: np.ndarray, stream: int) -> np.ndarray:
    """
    64 random bits per sample.

    Args:
        seed (`int`): Of the run.
        epoch (`int`): Number of the pass over the data.
        indices (`np.ndarray` of shape `(batch_size,)`): Positions of the samples in the data set.
        stream (`int`): Number of the purpose, so that e.g. offset and flip are independent of each other.

    Returns:
        `np.ndarray` of `uint64` and shape `(batch_size,)`.
    """
    return _splitmix(_key(seed, epoch, stream), np.asarray(indices).astype(np.uint64) + np.uint64(1))


def device_bits(seed: int, epoch: int, indices: torch.Tensor, stream: int) -> torch.Tensor:
    """
    [`random_bits`] of positions that are on a device already, so that nobody has to wait for them.

    Args:
        indices (`torch.Tensor` of `int64` and shape `(batch_size,)`): Positions of the samples in the data set.
        seed, epoch, stream: As in [`random_bits`].

    Returns:
        `torch.Tensor` of `int64` and shape `(batch_size,)`: The same bits, the first of them as the sign.
    """
    mixed = (indices + 1) * _signed(_GAMMA) + _signed(_key(seed, epoch, stream)[0])
    mixed = (mixed ^ _shifted(mixed, 30)) * _signed(_FIRST)
    mixed = (mixed ^ _shifted(mixed, 27)) * _signed(_SECOND)
    return mixed ^ _shifted(mixed, 31)


def random_integers(high: int, seed: int, epoch: int, indices: np.ndarray, stream: int) -> np.ndarray:
    """
    A random integer in [0, high) per sample.

    Args:
        high (`int`): At most 2**32; above a few million the numbers are no longer equally likely to 1e-3.
        seed, epoch, indices, stream: As in [`random_bits`].

    Returns:
        `np.ndarray` of `int64` and shape `(batch_size,)`.
    """
    # The high word of a product with the range is as uniform as a remainder and needs no division.
    bits = random_bits(seed, epoch, indices, stream) >> np.uint64(32)
    return ((bits * np.uint64(high)) >> np.uint64(32)).astype(np.int64)


@contextlib.contextmanager
def seeded_generators() -> Iterator[Callable[[int], None]]:
    """
    For third-party transforms, which draw from the global generators of Python, NumPy and PyTorch.

    Yields a function that seeds all three. Their states come back at the end, so that nobody outside notices.
    """
    # torch.manual_seed would also reseed the accelerators; only the CPU generator is used here.
    generator = torch.default_generator
    states = random.getstate(), np.random.get_state(), generator.get_state()

    def seed_all(seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        generator.manual_seed(seed % 2**63)

    try:
        yield seed_all
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        generator.set_state(states[2])


def _key(seed: int, epoch: int, stream: int) -> np.ndarray:
    key = np.zeros(1, dtype=np.uint64)
    for part in (seed, epoch, stream):
        key = _splitmix(key ^ np.uint64(part % 2**64), np.uint64(1))
    return key


def _signed(word: np.uint64) -> int:
    """As the int64 with the same bits; PyTorch multiplies no uint64."""
    return int(word.astype(np.int64))


def _shifted(bits: torch.Tensor, by: int) -> torch.Tensor:
    """To the right, with zeros in front; that of int64 repeats the sign."""
    return (bits >> by) & (2 ** (64 - by) - 1)


def _splitmix(state: np.ndarray, step: np.ndarray | np.uint64) -> np.ndarray:
    """The `step`-th output of splitmix64 from `state`; arrays of uint64 wrap around without a warning."""
    mixed = state + step * _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return mixed ^ (mixed >> np.uint64(31))
