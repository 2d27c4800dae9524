"""Plots of a comparison of methods: results with intervals, calibration, likeness to the teacher."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .paired import Summary
from .plots import (
    COLORS,
    MUTED,
    TEXT,
    _canvas,
    _check_fractions,
    _check_not_empty,
    _figure,
    _save,
    _style,
)
from .reliability import Calibration


_GRID = "#e4e4e4"
# Columns of small panels.
_PANELS = 5


def plot_comparison(summaries: Mapping[str, Summary], path: str | Path, baseline: str, title: str) -> Path:
    """
    Accuracy of every method: its mean as a dot, the interval of the mean as a line, and every seed as a tick below. The
    mean of the baseline is drawn through all rows.

    Args:
        summaries (`Mapping[str, Summary]`): What [`summarize`] made of accuracies as fractions in [0, 1]; the first
            method is at the top.
        path (`str` or `Path`): The PNG file to write.
        baseline (`str`): One of the methods.
        title (`str`): Of the plot.

    Returns:
        `Path`: That file.

    Raises:
        ValueError: There is no method, the baseline is none of them, or a value is no fraction.
    """
    _check_not_empty(summaries, "summaries")
    if baseline not in summaries:
        raise ValueError(f"the baseline {baseline!r} is not among the methods; there are {', '.join(summaries)}")
    for name, summary in summaries.items():
        _check_fractions(summary.values, f"summaries[{name!r}]")
    figure, axes = _figure(6.4 + _name_width(summaries), 1.8 + 0.32 * len(summaries))
    axes.axvline(100 * summaries[baseline].mean, color=MUTED, linestyle="--", linewidth=1.1, zorder=1)
    for row, (name, summary) in enumerate(summaries.items()):
        _draw_summary(axes, row, summary, COLORS[1] if name == baseline else COLORS[0])
    _name_rows(axes, list(summaries))
    axes.set_xlabel("accuracy, per cent")
    _heading(axes, title, f"{_signs(summaries)}\ndashed: mean of {baseline}")
    return _save(figure, path)


def plot_reliability(calibrations: Mapping[str, Calibration], path: str | Path, note: str = "") -> Path:
    """
    Accuracy over confidence, one panel a method, a dot for each bin whose area grows with the share of images in it.
    Dots on the diagonal are calibrated, those below it too sure.

    Args:
        calibrations (`Mapping[str, Calibration]`): What [`calibration`] or [`pool_calibrations`] gave for every method.
        path (`str` or `Path`): The PNG file to write.
        note (`str`, *optional*): What the title says besides, e.g. of which runs they are.

    Returns:
        `Path`: That file.

    Raises:
        ValueError: There is no method.
    """
    _check_not_empty(calibrations, "calibrations")
    columns = min(_PANELS, len(calibrations))
    figure = _canvas(max(4.2, 1.0 + 2.1 * columns), 1.3 + 2.15 * math.ceil(len(calibrations) / columns))
    panels = _panels(figure, len(calibrations), columns)
    for axes, (name, found) in zip(panels, calibrations.items(), strict=True):
        _draw_reliability(axes, found)
        axes.set_title(fill(name, 22), loc="left", fontsize=9, fontweight="bold", color=TEXT)
    figure.suptitle(
        f"Calibration: {note}" if note else "Calibration",
        x=0.02,
        ha="left",
        fontsize=11,
        fontweight="bold",
        color=TEXT,
    )
    figure.supxlabel("confidence, per cent (the larger a dot, the more images)", fontsize=10, color=TEXT)
    figure.supylabel("accuracy, per cent", fontsize=10, color=TEXT)
    return _save(figure, path)


def plot_similarities(values: Mapping[str, Mapping[str, float | None]], path: str | Path) -> Path:
    """
    How close every method brings a student to its teacher, one panel a measure, with an axis of its own.

    Args:
        values (`Mapping[str, Mapping[str, float | None]]`): By method and measure, e.g. `cka`, `head_similarity` and
            `alignment`. What a method lacks, or has as `None`, is a dash.
        path (`str` or `Path`): The PNG file to write.

    Returns:
        `Path`: That file.

    Raises:
        ValueError: There is no method or no measure, or a value is not finite.
    """
    _check_not_empty(values, "values")
    measures = list(dict.fromkeys(measure for found in values.values() for measure in found))
    _check_not_empty(measures, "measures")
    columns = min(4, len(measures))
    rows = math.ceil(len(measures) / columns)
    figure = _canvas(0.6 + _name_width(values) + 2.0 * columns, rows * (1.2 + 0.26 * len(values)))
    for axes, measure in zip(_panels(figure, len(measures), columns), measures, strict=True):
        _draw_measure(axes, measure, {method: found.get(measure) for method, found in values.items()})
    return _save(figure, path)


def _draw_summary(axes: Axes, row: int, summary: Summary, color: str) -> None:
    if summary.low is not None and summary.high is not None:
        axes.plot([100 * summary.low, 100 * summary.high], [row, row], color=color, linewidth=1.6, zorder=2)
    axes.scatter(100 * summary.mean, row, s=38, color=color, zorder=3)
    ticks = [100 * value for value in summary.values]
    axes.scatter(ticks, [row + 0.27] * len(ticks), s=26, marker="|", color=color, linewidths=1.1, zorder=3)
    place = axes.get_yaxis_transform()
    axes.text(1.02, row, f"{100 * summary.mean:.2f}", transform=place, va="center", fontsize=9, color=TEXT)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Rows of methods, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=_GRID, linewidth=0.8, zorder=0)


def _signs(summaries: Mapping[str, Summary]) -> str:
    levels = sorted({100 * summary.confidence for summary in summaries.values()})
    level = " or ".join(f"{level:g}" for level in levels)
    seeds = _seeds(len(summary.seeds) for summary in summaries.values())
    return f"{seeds} (ticks), mean (dot), {level} % t interval (line)"


def _heading(axes: Axes, title: str, note: str) -> None:
    """A title with a note below it, which may be too long to stand beside it."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=TEXT, pad=8 + 12 * len(note.split("\n")))
    axes.annotate(note, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", fontsize=9, color=MUTED)


def _name_width(names: Iterable[str]) -> float:
    """Inches of the longest name."""
    return 0.08 * max(map(len, names))


def _panels(figure: Figure, count: int, columns: int) -> list[Axes]:
    """Panels with shared axes of rows, row by row; what is left of the last row stays empty."""
    grid = figure.subplots(math.ceil(count / columns), columns, squeeze=False, sharey=True)
    panels = list(grid.flat)
    for axes in panels[count:]:
        axes.set_visible(False)
    for axes in panels[:count]:
        _style(axes)
    return panels[:count]


def _draw_reliability(axes: Axes, found: Calibration) -> None:
    axes.plot([0, 100], [0, 100], color=MUTED, linestyle="--", linewidth=1, zorder=1)
    rows = zip(found.counts, found.confidence, found.accuracy, strict=True)
    full = [(count, 100 * sure, 100 * right) for count, sure, right in rows if sure is not None and right is not None]
    counts, sureness, rates = zip(*full, strict=True)
    areas = [8 + 300 * count / sum(counts) for count in counts]
    axes.plot(sureness, rates, color=COLORS[0], linewidth=1, alpha=0.6, zorder=2)
    axes.scatter(sureness, rates, s=areas, color=COLORS[0], edgecolors="white", linewidths=0.5, zorder=3)
    axes.set(xlim=(-4, 104), ylim=(-4, 104), xticks=(0, 50, 100), yticks=(0, 50, 100), aspect="equal")
    error = f"ECE {100 * found.expected_calibration_error:.2f}"
    axes.text(0, 98, error, ha="left", va="top", fontsize=9, color=TEXT)


def _draw_measure(axes: Axes, measure: str, found: Mapping[str, float | None]) -> None:
    for row, value in enumerate(found.values()):
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{measure} of {list(found)[row]!r} is {value}; look at that run, and leave it out")
        axes.barh(row, value or 0, height=0.62, color=COLORS[0], zorder=2)
        # Of a negative value the place right of the bar is left of zero.
        text = "-" if value is None else f"{value:.2f}"
        place = (max(value or 0, 0), row)
        axes.annotate(text, place, (3, 0), textcoords="offset points", va="center", fontsize=8, color=TEXT)
    _name_rows(axes, list(found))
    axes.axvline(0, color=MUTED, linewidth=0.9, zorder=3)
    axes.margins(x=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.set_title(fill(measure.replace("_", " "), 18), loc="left", fontsize=10, fontweight="bold", color=TEXT)


def _seeds(counts: Iterable[int]) -> str:
    found = sorted(set(counts))
    number = str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
    return f"{number} seed{'' if found == [1] else 's'}"
