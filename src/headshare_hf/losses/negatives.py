"""Which stored images a contrastive loss compares an image with, drawn batch by batch where the loss is computed."""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..data.randomness import random_bits


NEGATIVES = ("exact", "relaxed", "shared")
_STREAM = 16
# Size of the pool in rows of negatives: two rows of a batch share about half of their images.
_POOL = 2


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
    differ): a resumed run repeats it, and several processes draw together what one would draw for their whole batch.

    - `"exact"`: every row of negatives is a uniform subset of the images of other classes, none twice; the positive is
      the image itself. The rows of a batch are windows of one permutation of a pool that is twice as large, so that
      they are not independent of each other; in return the cost does not depend on the number of images. (The paper's
      code draws one permutation of all images for each image.)
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
        generator = torch.Generator(self.labels.device)
        bits = random_bits(self.seed, step, np.zeros(1), _STREAM)[0]
        generator.manual_seed(int(bits) % 2**63)
        order = torch.randperm(len(self.labels), generator=generator, device=self.labels.device)
        if self.kind == "shared":
            pool = order[: self.num_negatives]
            return Contrast(index, pool=pool, excluded=self.labels[index, None] == self.labels[pool])
        pool = order[: max(_POOL * self.num_negatives, self.num_negatives + self.largest_class)]
        negatives = self._windows(pool, index, generator)
        positives = self._class_mates(index, generator) if self.kind == "relaxed" else index
        return Contrast(positives, negatives, pool)

    def _windows(self, pool: torch.Tensor, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """
        For each image the first `num_negatives` positions of other classes in the cyclic `pool`, from a place of its
        own: the window that begins there, in which what is of its own class makes room for those that follow.
        """
        count, spare = self.num_negatives, self.largest_class
        begin = torch.randint(len(pool), self.labels.shape, generator=generator, device=pool.device)[index]
        cyclic = torch.arange(len(pool) + count + spare, device=pool.device) % len(pool)
        classes, own = self.labels[pool][cyclic], self.labels[index, None]
        rows = cyclic.unfold(0, count, 1).index_select(0, begin)
        replaced = classes.unfold(0, count, 1).index_select(0, begin) == own
        following = cyclic.unfold(0, spare, 1).index_select(0, begin + count)
        usable = classes.unfold(0, spare, 1).index_select(0, begin + count) != own
        used = usable & (usable.cumsum(1) <= replaced.sum(1, keepdim=True))
        return rows.masked_scatter_(replaced, _packed(following, used))

    def _class_mates(self, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        share = torch.rand(len(self.labels), generator=generator, device=index.device)[index]
        own = self.labels[index]
        within = (share * self.counts[own]).long().minimum(self.counts[own] - 1)
        return self.by_class[self.starts[own] + within]


def _packed(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The chosen values one after another, in a tensor whose size does not depend on how many there are."""
    # Indexing with a mask would have to wait for the device to learn that number.
    flat = chosen.flatten()
    place = torch.where(flat, flat.cumsum(0) - 1, flat.numel())
    return values.new_zeros(flat.numel() + 1).scatter_(0, place, values.flatten())


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
