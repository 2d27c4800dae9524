"""Confidence intervals of TAR at low FAR: templates drawn anew, all pairs weighted, only the top impostors looked at."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from .ijb_templates import occurring_rows
from .pair_bootstrap import Interval


# Entries of a block of the matrix that counts pairs: 32 MB in each of two types.
_BLOCK_ENTRIES = 1 << 22
# Pairs whose weights are added up at a time for all draws, in int32: templates would have to be drawn 1,400 times each.
_BLOCK_PAIRS = 1024


class TemplateBootstrap:
    """
    Draws the templates of a protocol with replacement. A pair then counts as often as the product of how often its two
    templates were drawn, as if the protocol had been written for the drawn templates (pigeonhole bootstrap, Owen 2007,
    arXiv 0712.1111). Drawing pairs would treat the thousands of pairs of one template as independent, and the intervals
    would be far too narrow.

    The weights of all impostor pairs are only ever added up, for all draws at once, as a matrix product. To find a low
    FAR, only the top impostor pairs count: a little more than the share of the highest FAR asked for. Their weights are
    added up in blocks, for all draws at once too, and a draw goes through the pairs of the one block that reaches the
    FAR. The numbers are those of the whole weighted list, exactly.

    Args:
        first (`np.ndarray` of integers and shape `(num_pairs,)`): Row of the first template of every pair.
        second (`np.ndarray` of integers and shape `(num_pairs,)`): Row of the second.
        is_same (`np.ndarray` of `bool` and shape `(num_pairs,)`): Whether both show the same person.
        num_templates (`int`): Number of templates.
        num_resamples (`int`): How often to draw.
        seed (`int`): Determines the draws.

    Raises:
        ValueError: `num_resamples` is below 2.
    """

    def __init__(
        self,
        first: np.ndarray,
        second: np.ndarray,
        is_same: np.ndarray,
        num_templates: int,
        num_resamples: int,
        seed: int,
    ) -> None:
        if num_resamples < 2:
            raise ValueError(f"`num_resamples` is {num_resamples}; an interval needs at least 2, and 200 are usual")
        self._first, self._second, self._is_same = first, second, is_same
        self.multiplicity = _draw(num_templates, num_resamples, seed)

    def tar_at_most(self, scores: np.ndarray, fars: Sequence[float], *, progress: bool = True) -> np.ndarray:
        """
        TAR by the rule `"at_most"` in every draw.

        Args:
            scores (`np.ndarray` of shape `(num_pairs,)`): Similarities.
            fars (`Sequence[float]`): FARs in [0, 1].
            progress (`bool`, *optional*, defaults to `True`): Show a progress bar, on a terminal.

        Returns:
            `np.ndarray` of shape `(num_resamples, len(fars))`.

        Raises:
            ValueError: In a draw there is no genuine or no impostor pair left.
        """
        genuine = self._ordered(scores, np.flatnonzero(self._is_same))
        impostors = np.flatnonzero(~self._is_same)
        top = self._top(scores, impostors, int(1.25 * max(fars) * len(impostors)) + 1000)
        reached = self._reached(top)
        result = np.empty((len(self.multiplicity), len(fars)))
        totals = tqdm(self._impostor_totals().tolist(), desc="bootstrap", disable=None if progress else True)
        for row, (drawn, total) in enumerate(zip(self.multiplicity, totals, strict=True)):
            true = np.append(0, genuine.weights(drawn).cumsum())
            if not true[-1] or not total:
                raise ValueError(
                    f"draw {row} has no {'impostor' if true[-1] else 'genuine'} pair left; the protocol is too small to "
                    "bootstrap, use num_resamples=0"
                )
            allowed = [_allowed(far, total) for far in fars]
            while reached[-1, row] <= max(allowed) and len(top.scores) < len(impostors):
                top = self._top(scores, impostors, 2 * len(top.scores))
                reached = self._reached(top)
            limits = np.array([top.limit(drawn, reached[:, row], number) for number in allowed])
            # Genuine scores have to be above the first impostor that is too much.
            result[row] = true[np.searchsorted(-genuine.scores, -limits, side="left")] / true[-1]
        return result

    def _reached(self, top: "_Pairs") -> np.ndarray:
        """The weights of the pairs up to the end of each block, `(num_blocks, num_resamples)`."""
        drawn = np.ascontiguousarray(self.multiplicity.T, dtype=np.int32)
        sums = [
            np.einsum("ij,ij->j", drawn.take(top.first[part], axis=0), drawn.take(top.second[part], axis=0))
            for part in top.blocks()
        ]
        return np.cumsum(sums, axis=0, dtype=np.int64)

    def _ordered(self, scores: np.ndarray, pairs: np.ndarray) -> "_Pairs":
        pairs = pairs[np.argsort(-scores[pairs])]
        return _Pairs(scores[pairs], self._first[pairs], self._second[pairs])

    def _top(self, scores: np.ndarray, pairs: np.ndarray, count: int) -> "_Pairs":
        """At least `count` pairs of highest score, and all that tie with the last one."""
        if count < len(pairs):
            values = scores[pairs]
            pairs = pairs[values >= np.partition(values, len(values) - count)[len(values) - count]]
        return self._ordered(scores, pairs)

    def _impostor_totals(self) -> np.ndarray:
        """The weight of all impostor pairs in every draw: m A m, with the matrix A that counts impostor pairs."""
        first, second = self._first[~self._is_same], self._second[~self._is_same]
        left, left_row = occurring_rows(first, self.multiplicity.shape[1])
        right, right_row = occurring_rows(second, self.multiplicity.shape[1])
        # Sorted, the entries of some rows lie together.
        entries = left_row[first].astype(np.int64) * len(right) + right_row[second]
        entries.sort()
        drawn_left, drawn_right = (torch.from_numpy(self.multiplicity.T[side]).double() for side in (left, right))
        totals = torch.zeros(len(self.multiplicity), dtype=torch.float64)
        rows = max(1, _BLOCK_ENTRIES // max(1, len(right)))
        for start in range(0, len(left), rows):
            counts = _dense_rows(entries, start, min(start + rows, len(left)), len(right))
            totals += ((counts @ drawn_right) * drawn_left[start : start + rows]).sum(dim=0)
        return totals.long().numpy()


class _Pairs(NamedTuple):
    """Pairs of falling score."""

    scores: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def weights(self, drawn: np.ndarray, part: slice = slice(None)) -> np.ndarray:
        """How often each pair counts, in a draw with each template as often as this."""
        return drawn[self.first[part]] * drawn[self.second[part]]

    def blocks(self) -> list[slice]:
        """Parts of at most `_BLOCK_PAIRS` pairs."""
        return [slice(start, start + _BLOCK_PAIRS) for start in range(0, len(self.scores), _BLOCK_PAIRS)]

    def limit(self, drawn: np.ndarray, reached: np.ndarray, allowed: int) -> float:
        """
        The score of the first pair with which the weights of a draw add up to more than `allowed`, minus infinity if
        none does; `reached` are the sums at the ends of the blocks.
        """
        number = int(np.searchsorted(reached, allowed, side="right"))
        if number == len(reached):
            return -np.inf
        part = self.blocks()[number]
        sums = self.weights(drawn, part).cumsum() + (reached[number - 1] if number else 0)
        return float(self.scores[part][np.searchsorted(sums, allowed, side="right")])


def percentile_interval(values: np.ndarray, confidence: float) -> Interval:
    """
    The percentile bootstrap interval.

    Args:
        values (`np.ndarray` of shape `(num_resamples,)`): A number in every draw.
        confidence (`float`): Share of draws within, in (0, 1).

    Raises:
        ValueError: `confidence` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` is {confidence}; it must be between 0 and 1, e.g. 0.95")
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def _draw(num_templates: int, num_resamples: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    draws = (generator.integers(num_templates, size=num_templates) for _ in range(num_resamples))
    return np.stack([np.bincount(draw, minlength=num_templates) for draw in draws])


def _dense_rows(entries: np.ndarray, start: int, stop: int, width: int) -> torch.Tensor:
    """Rows of a matrix that counts how often each of its entries, numbered row by row, is in a sorted list."""
    begin, end = np.searchsorted(entries, [start * width, stop * width])
    counts = np.bincount(entries[begin:end] - start * width, minlength=(stop - start) * width)
    return torch.from_numpy(counts).double().view(stop - start, width)


def _allowed(far: float, total: int) -> int:
    """The largest number of false accepts whose rate, rounded as a quotient, is not above `far`."""
    allowed = int(far * total)
    while (allowed + 1) / total <= far:
        allowed += 1
    while allowed / total > far:
        allowed -= 1
    return allowed
