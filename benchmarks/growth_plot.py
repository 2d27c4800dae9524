"""The picture of benchmarks/growth.py, and the exponents of growth."""

import math
from pathlib import Path
from typing import Any


Point = dict[str, float]
# What is drawn in each row, how its axis is called, and what it is multiplied with.
QUANTITIES = (("seconds", "ms a step", 1e3), ("megabytes", "extra MB a step, with gradients", 1.0))


def slopes(points: list[Point], quantity: str) -> list[float]:
    """Exponent of growth between neighbors."""
    return [
        math.log(max(b[quantity], 1e-9) / max(a[quantity], 1e-9)) / math.log(b["value"] / a["value"])
        for a, b in zip(points, points[1:], strict=False)
    ]


def draw(curves: dict[str, dict[str, list[Point]]], labels: dict[str, str], path: Path) -> None:
    """Two rows of pictures, time and memory, with the slope at each segment."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(curves), figsize=(4.4 * len(curves), 7), layout="constrained")
    for column, (sweep, forms) in enumerate(curves.items()):
        for row, (quantity, unit, factor) in enumerate(QUANTITIES):
            panel = axes[row][column]
            panel.set(xscale="log", yscale="log", xlabel=labels[sweep], ylabel=unit)
            for number, (form, points) in enumerate(forms.items()):
                _curve(panel, form, points, quantity, factor, above=number == 0)
            _mark_values(panel, forms)
            if len(forms) > 1:
                panel.legend()
    figure.suptitle("Growth of a step; small numbers are the exponents of the segments")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _curve(panel: Any, form: str, points: list[Point], quantity: str, factor: float, above: bool) -> None:
    values, heights = [p["value"] for p in points], [max(p[quantity], 1e-3) * factor for p in points]
    (line,) = panel.plot(values, heights, marker="o", label=form)
    rising = heights[-1] >= heights[0]
    place = {
        "textcoords": "offset points",
        "xytext": (-9 if above == rising else 9, 7 if above else -12),
        "ha": "center",
    }
    for index, slope in enumerate(slopes(points, quantity)):
        middle = math.sqrt(values[index] * values[index + 1]), math.sqrt(heights[index] * heights[index + 1])
        panel.annotate(f"{slope:.2f}", middle, fontsize=7, color=line.get_color(), **place)


def _mark_values(panel: Any, forms: dict[str, list[Point]]) -> None:
    """Ticks where something was measured: those of a logarithmic axis run into one another on less than a decade."""
    values = sorted({point["value"] for points in forms.values() for point in points})
    panel.set_xticks(values, labels=[f"{value:,}" for value in values])
    panel.set_xticks([], minor=True)
