"""Plots of verification: ROC and DET curves, and how similar pairs of one person and of two are."""

from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .arrays import to_array
from .plots import COLORS, LINES, TEXT, _check_not_empty, _figure, _save, _title
from .roc import Roc


_NORMAL = NormalDist()
# Where the axes of a DET curve have numbers.
_RATES = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)


def plot_roc(curves: Mapping[str, Roc], path: str | Path) -> Path:
    """
    TAR over FAR, the latter on a logarithmic axis that begins at half an impostor pair of the largest set:
    what is drawn left of the first whole one is the TAR without any false accept.

    Args:
        curves (`Mapping[str, Roc]`): The curve of every model or set.
        path (`str` or `Path`): The PNG file to write.

    Returns:
        `Path`: That file.

    Raises:
        ValueError: There is no curve.
    """
    _check_not_empty(curves, "curves")
    figure, axes = _figure(6.8, 4.4)
    lowest = min(0.1, 0.5 / max(roc.num_impostor for roc in curves.values()))
    for index, (name, roc) in enumerate(curves.items()):
        far, tar, _ = roc.points()
        # No false accept at all has no place on the axis; it is drawn from where half a false accept would be.
        x = np.append(0.5 / roc.num_impostor, far[far > 0])
        y = np.append(roc.tar_at_far(0.0, "at_most"), tar[far > 0])
        axes.plot(x, 100 * y, drawstyle="steps-post", label=f"{name} (AUC {roc.auc:.4f})", **_line_style(index))
    axes.set_xscale("log")
    axes.set_xlim(lowest, 1)
    axes.set_xlabel("false accept rate (FAR)")
    axes.set_ylabel("true accept rate (TAR), per cent")
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8, zorder=0)
    _title(axes, "ROC", _pairs(curves))
    axes.legend(loc="best", frameon=False, fontsize=9, labelcolor=TEXT)
    return _save(figure, path)


def plot_det(curves: Mapping[str, Roc], path: str | Path) -> Path:
    """
    False reject rate over FAR, both on the scale of normal deviates, on which normal scores give a straight line
    (A. Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997).

    Args:
        curves (`Mapping[str, Roc]`): The curve of every model or set.
        path (`str` or `Path`): The PNG file to write.

    Returns:
        `Path`: That file.

    Raises:
        ValueError: There is no curve.
    """
    _check_not_empty(curves, "curves")
    figure, axes = _figure(6.2, 5.4)
    least_far = min(0.2, 0.2 / max(roc.num_impostor for roc in curves.values()))
    least_frr = min(0.2, 0.2 / max(roc.num_genuine for roc in curves.values()))
    most = 0.6 if max(roc.eer for roc in curves.values()) < 0.4 else 0.95
    for index, (name, roc) in enumerate(curves.items()):
        far, tar, _ = roc.points()
        # A rate of 0 or 1 is infinitely far away; a quarter of a pair is as good as none and is on the axis.
        x = _deviates(far.clip(0.25 / roc.num_impostor, 1 - 0.25 / roc.num_impostor))
        y = _deviates((1 - tar).clip(0.25 / roc.num_genuine, 1 - 0.25 / roc.num_genuine))
        axes.plot(x, y, drawstyle="steps-post", label=f"{name} (EER {100 * roc.eer:.2f} %)", **_line_style(index))
    _deviate_axis(axes, "x", least_far, most)
    _deviate_axis(axes, "y", least_frr, most)
    axes.set_xlabel("false accept rate, per cent")
    axes.set_ylabel("false reject rate, per cent")
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8, zorder=0)
    _title(axes, "DET", _pairs(curves))
    axes.legend(loc="upper right", frameon=False, fontsize=9, labelcolor=TEXT)
    return _save(figure, path)


def plot_similarity_histogram(scores: Any, is_same: Any, path: str | Path, threshold: float | None = None) -> Path:
    """
    How similar pairs of one person and of two people are.

    Args:
        scores (`torch.Tensor` or `np.ndarray` of shape `(num_pairs,)`): Similarities.
        is_same (`torch.Tensor` or `np.ndarray` of `bool` and shape `(num_pairs,)`): Whether the pair is one person.
        path (`str` or `Path`): The PNG file to write.
        threshold (`float`, *optional*): Similarity above which pairs are accepted, drawn as a line.

    Returns:
        `Path`: That file.

    Raises:
        ValueError: The shapes differ, there is no pair, or a score is not finite.
    """
    values, same = to_array(scores).astype(np.float64), to_array(is_same).astype(bool)
    if values.ndim != 1 or not len(values) or same.shape != values.shape or not np.isfinite(values).all():
        raise ValueError(
            f"`scores` of shape {values.shape} and `is_same` of shape {same.shape} must be one finite number and one "
            "bool for each pair"
        )
    figure, axes = _figure(6.8, 4.2)
    bins = np.linspace(*_span(values), 61)
    for kind, color, label in ((~same, COLORS[1], "two people"), (same, COLORS[0], "one person")):
        if kind.any():
            weights = np.full(kind.sum(), 100 / kind.sum())
            label = f"{label} ({kind.sum():,})"
            axes.hist(values[kind], bins.tolist(), weights=weights, color=color, alpha=0.55, label=label, zorder=2)
    if threshold is not None:
        axes.axvline(
            threshold, color=TEXT, linestyle="--", linewidth=1.3, label=f"threshold {threshold:.3f}", zorder=3
        )
    axes.set_xlabel("cosine similarity")
    axes.set_ylabel("share of the pairs of a kind, per cent")
    _title(axes, "Similarity of pairs", f"number of pairs: {len(values):,}")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9, labelcolor=TEXT)
    return _save(figure, path)


def _line_style(index: int) -> dict[str, Any]:
    line = LINES[index // len(COLORS) % len(LINES)]
    return {"color": COLORS[index % len(COLORS)], "linestyle": line, "linewidth": 1.8, "zorder": 2}


def _deviates(rates: np.ndarray) -> np.ndarray:
    return np.array([_NORMAL.inv_cdf(rate) for rate in rates.tolist()])


def _deviate_axis(axes: Axes, name: str, least: float, most: float) -> None:
    axis = getattr(axes, f"{name}axis")
    rates = [rate for rate in _RATES if rate >= least]
    axis.set_major_locator(FixedLocator([_NORMAL.inv_cdf(rate) for rate in rates]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda deviate, _: f"{100 * _NORMAL.cdf(deviate):.4g}"))
    getattr(axes, f"set_{name}lim")(_NORMAL.inv_cdf(least), _NORMAL.inv_cdf(most))


def _span(values: np.ndarray) -> tuple[float, float]:
    margin = max(0.02, 0.02 * float(np.ptp(values)))
    return float(values.min()) - margin, float(values.max()) + margin


def _pairs(curves: Mapping[str, Roc]) -> str:
    counts = {(roc.num_genuine, roc.num_impostor) for roc in curves.values()}
    if len(counts) > 1:
        return "sets of different size"
    genuine, impostor = counts.pop()
    return f"{genuine:,} genuine, {impostor:,} impostor pairs"
