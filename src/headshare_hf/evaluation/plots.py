"""Plots of results, drawn on matplotlib's Agg canvas without a display and without `pyplot`'s global state."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator


# The palette of Okabe and Ito, which people with any color vision can tell apart; its yellow is too light for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")
TEXT, MUTED = "#222222", "#666666"
DPI = 150


def plot_accuracy_bars(results: Mapping[str, Sequence[float]], path: str | Path) -> Path:
    """
    Mean accuracy of every method, with the standard error of the mean where there are several seeds.

    The axis is cut below the lowest value, and says so, because methods differ by little.

    Args:
        results (`Mapping[str, Sequence[float]]`): Accuracies of a method, one a seed, as fractions in [0, 1].
        path (`str` or `Path`): The PNG file to write.

    Returns:
        `Path`: That file.

    Raises:
        ValueError: There is no method, a method has no value, or a value is no fraction.
    """
    _check_not_empty(results, "results")
    for name, values in results.items():
        _check_fractions(values, f"results[{name!r}]")
    means = [100 * sum(values) / len(values) for values in results.values()]
    errors = [100 * _standard_error(values) for values in results.values()]
    figure, axes = _figure(max(6.4, 1.6 + 1.15 * len(results)), 4.2)
    floor = _bar_floor(means, errors)
    _draw_bars(axes, means, errors, floor)
    turned = max(map(len, results)) > 13
    axes.set_xticks(range(len(means)), list(results), rotation=20 if turned else 0, ha="right" if turned else "center")
    axes.set_ylabel("accuracy, per cent" + (f" (axis starts at {floor:g})" if floor else ""))
    _title(axes, "Top-1 accuracy by method", _seeds(results))
    return _save(figure, path)


def plot_training_curves(curves: Mapping[str, Sequence[tuple[float, float]]], path: str | Path) -> Path:
    """
    Accuracy after every epoch, one line a run, with the last value in the legend.

    Args:
        curves (`Mapping[str, Sequence[tuple[float, float]]]`): Pairs of epoch and accuracy, a fraction in [0, 1].
        path (`str` or `Path`): The PNG file to write.

    Returns:
        `Path`: That file.

    Raises:
        ValueError: There is no run, a run has no point, or a value is no fraction.
    """
    _check_not_empty(curves, "curves")
    figure, axes = _figure(6.8, 4.2)
    for index, (name, points) in enumerate(curves.items()):
        _check_fractions([accuracy for _, accuracy in points], f"curves[{name!r}]")
        epochs, values = zip(*[(epoch, 100 * accuracy) for epoch, accuracy in sorted(points)], strict=True)
        axes.plot(
            epochs,
            values,
            label=f"{name} ({values[-1]:.2f})",
            color=COLORS[index % len(COLORS)],
            linestyle=LINES[index // len(COLORS) % len(LINES)],
            marker="o" if len(points) <= 20 else None,
            markersize=4,
            linewidth=1.8,
            zorder=2,
        )
    _epoch_axis(axes)
    axes.set_ylabel("accuracy, per cent")
    _title(axes, "Accuracy during training", "last value in brackets")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9, labelcolor=TEXT)
    return _save(figure, path)


def plot_head_similarity(history: Sequence[Mapping[str, float]], path: str | Path) -> Path:
    """
    How close two heads are over the epochs: the cosine of their class weights, and the distance of their biases.

    Args:
        history (`Sequence[Mapping[str, float]]`): What [`head_similarity`] gave, with `epoch` added. The lower panel is
            left out if no entry has a `bias_distance`.
        path (`str` or `Path`): The PNG file to write.

    Returns:
        `Path`: That file.

    Raises:
        ValueError: The history is empty, or an entry lacks a number; both are named.
    """
    _check_not_empty(history, "history")
    has_bias = any("bias_distance" in entry for entry in history)
    for index, entry in enumerate(history):
        for key in ("epoch", "cosine_mean", "cosine_min", *(["bias_distance"] if has_bias else [])):
            if key not in entry:
                raise ValueError(f"history[{index}] has no {key!r}; it has {', '.join(entry)}")
    figure = _canvas(6.8, 5.4 if has_bias else 3.6)
    upper, *lower = figure.subplots(2 if has_bias else 1, 1, sharex=True, squeeze=False)[:, 0]
    rows = sorted(history, key=lambda entry: entry["epoch"])
    _draw_cosines(upper, rows)
    for axes in lower:
        _style(axes)
        _line(axes, rows, "bias_distance", COLORS[2], "bias distance")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("distance of biases")
    _epoch_axis((lower or [upper])[-1])
    return _save(figure, path)


def _draw_bars(axes: Axes, means: Sequence[float], errors: Sequence[float], floor: float) -> None:
    heights = [mean - floor for mean in means]
    axes.bar(range(len(means)), heights, bottom=floor, width=0.62, color=COLORS[0], zorder=2)
    top = max(mean + error for mean, error in zip(means, errors, strict=True))
    # At least one point, for bars that are all 0.
    span = max(top - floor, 1.0)
    for center, (mean, error) in enumerate(zip(means, errors, strict=True)):
        if error:
            axes.errorbar(center, mean, yerr=error, color=TEXT, capsize=4, linewidth=1.3, zorder=3)
        label = f"{mean:.2f} ± {error:.2f}" if error else f"{mean:.2f}"
        above = mean + error + 0.03 * span
        axes.text(center, above, label, ha="center", va="bottom", fontsize=9, color=TEXT)
    axes.set_xlim(-0.7, len(means) - 0.3)
    axes.set_ylim(floor, top + 0.16 * span)


def _draw_cosines(axes: Axes, rows: Sequence[Mapping[str, float]]) -> None:
    _style(axes)
    epochs = [row["epoch"] for row in rows]
    _line(axes, rows, "cosine_mean", COLORS[0], "mean over classes")
    _line(axes, rows, "cosine_min", COLORS[1], "least similar class", linestyle="--")
    if all("cosine_std" in row for row in rows):
        low, high = ([row["cosine_mean"] + sign * row["cosine_std"] for row in rows] for sign in (-1, 1))
        axes.fill_between(
            epochs, low, high, color=COLORS[0], alpha=0.15, linewidth=0, label="± one standard deviation"
        )
    # Cosines end at 1; a little above, so that the line is not on the frame.
    axes.set_ylim(top=1.04)
    axes.set_ylabel("cosine of class weights")
    axes.legend(loc="best", frameon=False, fontsize=9, labelcolor=TEXT)
    _title(axes, "Similarity of the two heads", "1 is the same direction")


def _line(
    axes: Axes, rows: Sequence[Mapping[str, float]], key: str, color: str, label: str, linestyle: str = "-"
) -> None:
    marker = "o" if len(rows) <= 20 else None
    x, y = [row["epoch"] for row in rows], [row[key] for row in rows]
    axes.plot(
        x, y, color=color, label=label, linestyle=linestyle, marker=marker, markersize=4, linewidth=1.8, zorder=2
    )


def _canvas(width: float, height: float) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _canvas(width, height)
    axes = figure.add_subplot()
    _style(axes)
    return figure, axes


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=TEXT, labelsize=9)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8, zorder=0)
    axes.xaxis.label.set_color(TEXT)
    axes.yaxis.label.set_color(TEXT)


def _epoch_axis(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _title(axes: Axes, title: str, note: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=TEXT)
    axes.set_title(note, loc="right", fontsize=9, color=MUTED)


def _save(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return path


def _bar_floor(means: Sequence[float], errors: Sequence[float]) -> float:
    """A multiple of 5 from which the smallest bar still has a third of the height of the tallest; 0 where it would."""
    lowest = min(mean - error for mean, error in zip(means, errors, strict=True))
    return max(0.0, 5 * math.floor((lowest - 0.5 * (max(means) - lowest) - 1) / 5))


def _standard_error(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def _seeds(results: Mapping[str, Sequence[float]]) -> str:
    counts = sorted({len(values) for values in results.values()})
    if counts == [1]:
        return "1 seed"
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{number} seeds, mean ± standard error"


def _check_not_empty(values: Mapping | Sequence, name: str) -> None:
    if not values:
        raise ValueError(f"`{name}` is empty; there is nothing to draw")


def _check_fractions(values: Sequence[float], name: str) -> None:
    if not len(values):
        raise ValueError(f"{name} has no values; there is nothing to draw")
    for value in values:
        if not 0 <= value <= 1:
            raise ValueError(f"{name} has {value}; accuracies are fractions in [0, 1], not per cent")
