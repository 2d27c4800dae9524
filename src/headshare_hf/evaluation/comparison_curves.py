"""Curves of a comparison of methods over the epochs: the mean over the seeds as a line, their range as a band."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from .comparison_plots import _heading, _name_width, _seeds
from .plots import COLORS, LINES, TEXT, _check_fractions, _check_not_empty, _epoch_axis, _figure, _save


_Curves = Mapping[str, Sequence[Sequence[tuple[float, float]]]]


class _Aligned(NamedTuple):
    """Epochs, and values of shape `(num_seeds, num_epochs)`."""

    epochs: np.ndarray
    values: np.ndarray


def plot_curves_with_bands(curves: _Curves, path: str | Path) -> Path:
    """
    Accuracy after every epoch: the mean over the seeds as a line, from the lowest to the highest seed as a band, and
    the last mean in the legend.

    Args:
        curves (`Mapping[str, Sequence[Sequence[tuple[float, float]]]]`): Of every method, of every seed, pairs of epoch
            and accuracy, a fraction in [0, 1].
        path (`str` or `Path`): The PNG file to write.

    Returns:
        `Path`: That file.

    Raises:
        ValueError: There is no method, no seed or no point, a value is no fraction, or seeds of a method were
            evaluated after different epochs.
    """
    found = _all_aligned(curves, _check_fractions)
    found = {name: _Aligned(epochs, 100 * values) for name, (epochs, values) in found.items()}
    floor = _curve_floor(found.values())
    label = "accuracy, per cent" + (f" (axis starts at {floor})" if floor else "")
    return _plot(found, path, "Accuracy during training", label, lambda axes: axes.set_ylim(bottom=floor))


def plot_losses_with_bands(curves: _Curves, path: str | Path) -> Path:
    """
    Training loss of every epoch, as [`plot_curves_with_bands`] draws accuracies, on a logarithmic axis where all are
    positive: methods add up other parts, so that their losses say how training goes and not which is better.

    Args:
        curves (`Mapping[str, Sequence[Sequence[tuple[float, float]]]]`): Of every method, of every seed, pairs of epoch
            and loss.
        path (`str` or `Path`): The PNG file to write.

    Returns:
        `Path`: That file.

    Raises:
        ValueError: There is no method, no seed or no point, a loss is not finite, or seeds of a method were
            logged after different epochs.
    """
    found = _all_aligned(curves, _check_losses)
    # Of VID they may be negative.
    scale = "log" if all((values > 0).all() for _, values in found.values()) else "linear"
    return _plot(found, path, "Loss during training", "training loss", lambda axes: axes.set_yscale(scale))


def _plot(
    curves: Mapping[str, _Aligned], path: str | Path, title: str, label: str, scale: Callable[[Axes], object]
) -> Path:
    figure, axes = _figure(6.2 + _name_width(curves), max(4.4, 1.0 + 0.22 * len(curves)))
    for index, (name, (epochs, values)) in enumerate(curves.items()):
        color, line = COLORS[index % len(COLORS)], LINES[index // len(COLORS) % len(LINES)]
        means = values.mean(axis=0)
        last = f"{name} ({means[-1]:.2f})"
        axes.plot(epochs, means, color=color, linestyle=line, linewidth=1.5, label=last, zorder=3)
        if len(values) > 1:
            axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0)
    _epoch_axis(axes)
    scale(axes)
    axes.set_ylabel(label)
    seeds = _seeds(len(values) for _, values in curves.values())
    _heading(axes, title, f"{seeds}, mean (line) and range (band); last mean in brackets")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9, labelcolor=TEXT)
    return _save(figure, path)


def _all_aligned(curves: _Curves, check: Callable[[Sequence[float], str], None]) -> dict[str, _Aligned]:
    _check_not_empty(curves, "curves")
    return {name: _aligned(runs, f"curves[{name!r}]", check) for name, runs in curves.items()}


def _aligned(
    runs: Sequence[Sequence[tuple[float, float]]], name: str, check: Callable[[Sequence[float], str], None]
) -> _Aligned:
    _check_not_empty(runs, name)
    ordered = [sorted(points) for points in runs]
    for index, points in enumerate(ordered):
        check([value for _, value in points], f"{name}[{index}]")
    epochs = [[epoch for epoch, _ in points] for points in ordered]
    for index, found in enumerate(epochs):
        if found != epochs[0]:
            raise ValueError(
                f"{name}[{index}] was evaluated after other epochs than {name}[0]; give the curves of finished runs with "
                "the same number of epochs"
            )
    return _Aligned(np.array(epochs[0]), np.array([[value for _, value in points] for points in ordered]))


def _check_losses(values: Sequence[float], name: str) -> None:
    if not len(values):
        raise ValueError(f"{name} has no values; there is nothing to draw")
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"{name} has the loss {value}; look at that run, and leave it out")


def _curve_floor(curves: Iterable[_Aligned]) -> int:
    """Where the axis begins, in per cent: below all that comes after the steep first quarter of the epochs."""
    lowest = min(values[:, epochs >= epochs[-1] / 4].min() for epochs, values in curves)
    return max(0, math.floor(lowest - 0.5))
