"""Which stored images a contrastive loss compares an image with, drawn batch by batch where the loss is computed."""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..data.randomness import device_bits, random_bits


NEGATIVES = ("exact", "relaxed", "shared")
# Numbers of the purposes among the streams of random bits: the pool, the window of an image, its class mate.
_POOL, _WINDOW, _MATE = 16, 17, 18
# Images for one of the pool up to which a permutation of all costs less than drawing until enough are different.
_PERMUTED = 16


class Contrast(NamedTuple):
    """
    What the images of a batch are compared with, as row numbers of a memory of all images.

    Attributes:
        positives (`torch.Tensor` of shape `(batch_size,)`): For each image of the batch, the row that it belongs to.
        negatives (`torch.Tensor` of shape `(batch_size, num_negatives)`, *optional*):
            The rows that it does not belong to, as positions in the pool, or in the memory without one. Default: the
            whole pool, for every image.
        pool (`torch.Tensor` of shape `(pool_size,)`, *optional*): The rows that the batch needs at all.
        excluded (`torch.Tensor` of `bool` and shape `(batch_size, pool_size)`, *optional*):
            Which of the pool are no negatives of an image.
    """

    positives: torch.Tensor
    negatives: torch.Tensor | None = None
    pool: torch.Tensor | None = None
    excluded: torch.Tensor | None = None


class NegativeSampler(nn.Module):
    """
    Draws negatives for contrastive representation distillation (arXiv 1910.10699) among the images of other classes.

    A draw is a function of the seed, the step and the image alone (and of the type of the device, since generators
    differ): a resumed run repeats it, and several processes draw together what one would draw for their whole batch. Its
    cost does not depend on the number of images.

    - `"exact"`: every row of negatives is a uniform subset of the images of other classes, none twice; the positive is
      the image itself. The rows of a batch are windows of one pool in random order, which has as many images more than a
      row as the largest class has, so that enough are left for every class. So each row is as likely as any other, but
      those of a batch have most of their images in common. (The paper's code draws one permutation of all images for
      each image.)
    - `"relaxed"`: the same negatives, but the positive is any image of the same class.
    - `"shared"`: one set of negatives for the whole batch, from all classes; those of its own class are left out for
      each image, so that the rows are shorter by about that share. Another sampling than the paper's, and the fastest.

    Args:
        labels (`torch.Tensor` of shape `(num_images,)`): Class of every image of the training set.
        num_negatives (`int`, *optional*, defaults to 16384): Negatives of each image.
        kind (`str`, *optional*, defaults to `"exact"`): One of the above.
        seed (`int`, *optional*, defaults to 0): Of the run.

    Raises:
        ValueError: An image has no class, there are not enough images of other classes, or there is no such kind.
    """

    labels: torch.Tensor
    counts: torch.Tensor
    by_class: torch.Tensor
    starts: torch.Tensor

    def __init__(self, labels: torch.Tensor, num_negatives: int = 16384, kind: str = "exact", seed: int = 0) -> None:
        super().__init__()
        if kind not in NEGATIVES:
            raise ValueError(f"unknown kind of negatives {kind!r}; allowed: {', '.join(NEGATIVES)}")
        _check_labels(labels)
        counts = torch.bincount(labels)
        _check_count(num_negatives, counts, len(labels))
        self.kind = kind
        self.num_negatives = num_negatives
        self.seed = seed
        self.largest_class = int(counts.max())
        tables = {
            "labels": labels.int(),
            "counts": counts,
            "by_class": torch.argsort(labels, stable=True),
            "starts": counts.cumsum(0) - counts,
        }
        # They come from the data set and move with the module, but a checkpoint need not hold them.
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def forward(self, index: torch.Tensor, step: int) -> Contrast:
        """
        Args:
            index (`torch.Tensor` of shape `(batch_size,)`): Positions of the images in the training set.
            step (`int`): Number of the batch within the run.

        Returns:
            [`Contrast`] on the device of this module.
        """
        if self.kind == "shared":
            pool = self._pool(self.num_negatives, step)
            return Contrast(index, pool=pool, excluded=self.labels[index, None] == self.labels[pool])
        pool = self._pool(self.num_negatives + self.largest_class, step)
        positives = self._class_mates(index, step) if self.kind == "relaxed" else index
        return Contrast(positives, pool=pool, excluded=self._outside(pool, index, step))

    def _pool(self, size: int, step: int) -> torch.Tensor:
        generator = torch.Generator(self.labels.device)
        bits = random_bits(self.seed, step, np.zeros(1), _POOL)[0]
        return draw_distinct(size, len(self.labels), generator.manual_seed(int(bits) % 2**63))

    def _outside(self, pool: torch.Tensor, index: torch.Tensor, step: int) -> torch.Tensor:
        """
        Which of the cyclic `pool` are outside of the window of each image: the first `num_negatives` of other classes from
        a place of its own on. That are those of its class, and the last of the others, which lie before that place.
        """
        spare = self.largest_class
        outside = self.labels[index, None] == self.labels[pool]
        surplus = spare - outside.sum(1, keepdim=True)
        begin = self._below(len(pool), index, step, _WINDOW)
        before = (begin[:, None] - torch.arange(1, spare + 1, device=pool.device)) % len(pool)
        own = outside.gather(1, before)
        return outside.scatter_(1, before, own | ((~own).cumsum(1) <= surplus))

    def _class_mates(self, index: torch.Tensor, step: int) -> torch.Tensor:
        own = self.labels[index]
        return self.by_class[self.starts[own] + self._below(self.counts[own], index, step, _MATE)]

    def _below(self, high: int | torch.Tensor, index: torch.Tensor, step: int, stream: int) -> torch.Tensor:
        """For each image a number in [0, high), of 63 bits, so that all are as likely."""
        return (device_bits(self.seed, step, index, stream) & (2**63 - 1)) % high


def draw_distinct(count: int, high: int, generator: torch.Generator) -> torch.Tensor:
    """
    Numbers without replacement, every sequence being as likely, in a time that depends on `count` alone.

    Args:
        count (`int`): How many; at most `high`.
        high (`int`): They are in [0, high).
        generator (`torch.Generator`): What they are drawn from, on the device where they are wanted.

    Returns:
        `torch.Tensor` of `int64` and shape `(count,)`.
    """
    if high <= _PERMUTED * count:
        return torch.randperm(high, generator=generator, device=generator.device)[:count]
    # Of so many, fewer than `count` are different once in 1e17 draws (McDiarmid's inequality). Looking whether they are
    # would make every step wait for the device.
    drawn = torch.randint(high, (count + count // 8 + 256,), generator=generator, device=generator.device)
    ranked, order = drawn.sort(stable=True)
    first = torch.ones_like(drawn, dtype=torch.bool)
    first[order[1:]] = ranked[1:] != ranked[:-1]
    # Indexing with a mask would wait too: all others share the place behind the last one.
    place = torch.where(first, first.cumsum(0) - 1, len(drawn))
    return drawn.new_zeros(len(drawn) + 1).scatter_(0, place, drawn)[:count]


def _check_labels(labels: torch.Tensor) -> None:
    if labels.ndim != 1 or labels.is_floating_point() or len(labels) == 0:
        raise ValueError(
            f"`labels` has shape {tuple(labels.shape)} and type {labels.dtype}; give the class number of every image"
        )
    if int(labels.min()) < 0:
        row = int((labels < 0).nonzero()[0])
        raise ValueError(
            f"image {row} has label {int(labels[row])}, but negatives are images of other classes; leave images without "
            "a class out of the training set"
        )


def _check_count(num_negatives: int, counts: torch.Tensor, num_images: int) -> None:
    if num_negatives < 1:
        raise ValueError(f"`num_negatives` is {num_negatives}; it must be at least 1")
    largest = int(counts.argmax())
    others = num_images - int(counts[largest])
    if num_negatives > others:
        raise ValueError(
            f"`num_negatives` is {num_negatives}, but an image of class {largest} has only {others} images of other "
            f"classes among {num_images}; set it to at most {others}"
        )
