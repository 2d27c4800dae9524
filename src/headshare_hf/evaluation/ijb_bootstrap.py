"""Confidence intervals of TAR at low FAR: templates drawn anew, all pairs weighted, only the top impostors looked at."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from .ijb_templates import occurring_rows
from .pair_bootstrap import Interval


# Entries of a block of the matrix that counts pairs: 64 MB in each of two types.
_BLOCK_ENTRIES = 1 << 23


class TemplateBootstrap:
    """
    Draws the templates of a protocol with replacement. A pair then counts as often as the product of how often its two
    templates were drawn, as if the protocol had been written for the drawn templates (pigeonhole bootstrap, Owen 2007,
    arXiv 0712.1111). Drawing pairs would treat the thousands of pairs of one template as independent, and the intervals
    would be far too narrow.

    The weights of all impostor pairs are only ever added up, for all draws at once, as a matrix product. To find a low
    FAR, a draw goes through the top impostor pairs alone: a little more than the share of the highest FAR asked for.
    The numbers are those of the whole weighted list, exactly.

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
            false = top.weights(drawn).cumsum()
            while false[-1] <= max(allowed) and len(top.scores) < len(impostors):
                top = self._top(scores, impostors, 2 * len(top.scores))
                false = top.weights(drawn).cumsum()
            # The first impostor that is too much; genuine scores have to be above it.
            limits = np.append(top.scores, -np.inf)[np.searchsorted(false, allowed, side="right")]
            result[row] = true[np.searchsorted(-genuine.scores, -limits, side="left")] / true[-1]
        return result

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
        impostors = np.flatnonzero(~self._is_same)
        first, second = self._first[impostors], self._second[impostors]
        num_templates = self.multiplicity.shape[1]
        left, left_row = occurring_rows(first, num_templates)
        right, right_row = occurring_rows(second, num_templates)
        multiplicity = torch.from_numpy(self.multiplicity).double()
        totals = torch.zeros(len(multiplicity), dtype=torch.float64)
        rows = max(1, _BLOCK_ENTRIES // len(right))
        for start in range(0, len(left), rows):
            row = left_row[first] - start
            inside = np.flatnonzero((row >= 0) & (row < rows))
            entries = row[inside] * len(right) + right_row[second[inside]]
            counts = torch.from_numpy(np.bincount(entries, minlength=rows * len(right))).double().view(rows, -1)
            drawn = multiplicity[:, left[start : start + rows]]
            totals += ((drawn @ counts[: drawn.shape[1]]) * multiplicity[:, right]).sum(dim=1)
        return totals.long().numpy()


class _Pairs(NamedTuple):
    """Pairs of falling score."""

    scores: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def weights(self, drawn: np.ndarray) -> np.ndarray:
        """How often each pair counts, in a draw with each template as often as this."""
        return drawn[self.first] * drawn[self.second]


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


def _allowed(far: float, total: int) -> int:
    """The largest number of false accepts whose rate, rounded as a quotient, is not above `far`."""
    allowed = int(far * total)
    while (allowed + 1) / total <= far:
        allowed += 1
    while allowed / total > far:
        allowed -= 1
    return allowed
