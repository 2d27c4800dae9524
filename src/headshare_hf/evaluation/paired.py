"""Methods compared over seeds: mean and interval of each, and the paired difference of each from a baseline."""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.special import stdtr, stdtrit


# Fractions that differ by less are the same number, computed in another order.
_ROUNDING = 1e-12


class Summary(NamedTuple):
    """
    A method over its seeds.

    Attributes:
        seeds (`tuple[int, ...]`): In rising order.
        values (`tuple[float, ...]`): Its result with each of them.
        mean (`float`): Mean over the seeds.
        standard_deviation (`float`, *optional*): Of the sample; `None` with one seed.
        low (`float`, *optional*): Lower end of the t interval of the mean; `None` with one seed, and where all seeds
            gave the same value, so that no spread can be estimated.
        high (`float`, *optional*): Its upper end.
        confidence (`float`): Of that interval, in (0, 1).
    """

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    standard_deviation: float | None
    low: float | None
    high: float | None
    confidence: float


class PairedDifference(NamedTuple):
    """
    A method minus the baseline, seed by seed.

    Attributes:
        seeds (`tuple[int, ...]`): Those that both have, in rising order.
        mean (`float`, *optional*): Mean difference; `None` without a shared seed.
        standard_deviation (`float`, *optional*): Of the sample; `None` with fewer than two shared seeds.
        low (`float`, *optional*): Lower end of the t interval of the mean difference; `None` as `p_value` is.
        high (`float`, *optional*): Its upper end.
        p_value (`float`, *optional*): Of the two-sided paired t-test that the mean difference is 0. `None` with fewer
            than two shared seeds, and where all differences are equal: without spread there is no t.
        p_adjusted (`float`, *optional*): That p value, corrected for the number of methods that were tested.
    """

    seeds: tuple[int, ...]
    mean: float | None
    standard_deviation: float | None
    low: float | None
    high: float | None
    p_value: float | None
    p_adjusted: float | None


class _Estimate(NamedTuple):
    """A sample: its mean, the spread around it, the interval of the mean, and the p value of the mean being 0."""

    mean: float | None
    standard_deviation: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


def summarize(values: Mapping[str, Mapping[int, float]], confidence: float = 0.95) -> dict[str, Summary]:
    """
    Mean of every method over its seeds, with the interval of Student's t.

    Args:
        values (`Mapping[str, Mapping[int, float]]`): A number, e.g. the accuracy as a fraction, by method and seed.
        confidence (`float`, *optional*, defaults to 0.95): Of the intervals, in (0, 1).

    Returns:
        `dict[str, Summary]`: By method, in the order given.

    Raises:
        ValueError: A method has no seed, a seed is no integer or a value not finite (names both), or `confidence` is
            out of range.
    """
    _check_values(values)
    _check_confidence(confidence)
    return {method: _summary(found, confidence) for method, found in values.items()}


def compare_paired(
    values: Mapping[str, Mapping[int, float]], baseline: str, confidence: float = 0.95
) -> dict[str, PairedDifference]:
    """
    Difference of every other method from the baseline, over the seeds that both have.

    With the same seed, runs share the order of the data and its augmentation, so that their differences may vary less than
    their values do. They start from the same weights only where their networks are the same and drawn from that seed, which
    those of SH-KD's last students, with heads and layers of their own, are not. The p values are corrected by S. Holm, "A simple sequentially rejective multiple
    test procedure", Scand. J. Statist. 6, 1979, which needs no independence of the tests: all share the baseline.

    Args:
        values (`Mapping[str, Mapping[int, float]]`): A number, e.g. the accuracy as a fraction, by method and seed.
        baseline (`str`): The method that the others are compared with.
        confidence (`float`, *optional*, defaults to 0.95): Of each interval alone, in (0, 1).

    Returns:
        `dict[str, PairedDifference]`: By method, in the order given, without the baseline.

    Raises:
        ValueError: The baseline is missing, or as in [`summarize`].
    """
    _check_values(values)
    _check_confidence(confidence)
    if baseline not in values:
        raise ValueError(f"the baseline {baseline!r} is not among the methods; there are {', '.join(values)}")
    found = {
        method: _difference(own, values[baseline], confidence) for method, own in values.items() if method != baseline
    }
    adjusted = _holm({method: row.p_value for method, row in found.items() if row.p_value is not None})
    return {method: row._replace(p_adjusted=adjusted.get(method)) for method, row in found.items()}


def _summary(found: Mapping[int, float], confidence: float) -> Summary:
    seeds = sorted(found)
    values = tuple(float(found[seed]) for seed in seeds)
    estimate = _estimate(values, confidence)
    return Summary(
        tuple(map(int, seeds)),
        values,
        fmean(values),
        estimate.standard_deviation,
        estimate.low,
        estimate.high,
        confidence,
    )


def _difference(own: Mapping[int, float], other: Mapping[int, float], confidence: float) -> PairedDifference:
    seeds = sorted(own.keys() & other.keys())
    estimate = _estimate([float(own[seed]) - float(other[seed]) for seed in seeds], confidence)
    return PairedDifference(tuple(map(int, seeds)), *estimate, p_adjusted=None)


def _estimate(sample: Sequence[float], confidence: float) -> _Estimate:
    if len(sample) < 2:
        return _Estimate(fmean(sample) if sample else None)
    mean, deviation = fmean(sample), stdev(sample)
    if deviation < _ROUNDING:
        return _Estimate(mean, 0.0)
    freedom, error = len(sample) - 1, deviation / math.sqrt(len(sample))
    margin = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    p_value = 2 * float(stdtr(freedom, -abs(mean) / error))
    return _Estimate(mean, deviation, mean - margin, mean + margin, p_value)


def _holm(p_values: Mapping[str, float]) -> dict[str, float]:
    adjusted, largest = {}, 0.0
    for rank, method in enumerate(sorted(p_values, key=p_values.__getitem__)):
        # No smaller than the one before, which would be rejected first.
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[method]))
        adjusted[method] = largest
    return adjusted


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` is {confidence}; it must be between 0 and 1, e.g. 0.95")


def _check_values(values: Mapping[str, Mapping[int, float]]) -> None:
    for method, found in values.items():
        if not found:
            raise ValueError(f"method {method!r} has no seeds; leave it out until it was run")
        for seed, value in found.items():
            if not isinstance(seed, Integral):
                raise ValueError(
                    f"seed {seed!r} of method {method!r} is no integer; the keys of a JSON file are text, convert them"
                )
            if not math.isfinite(value):
                raise ValueError(
                    f"seed {seed} of method {method!r} has the value {value}; look at that run, and leave it out if it "
                    "diverged"
                )
