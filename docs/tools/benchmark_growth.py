"""How the cost of a step grows: the table, and where its curves bend."""

import math
from typing import Any

from benchmark_versions import measured_with


Point = dict[str, float]
# Changes of the exponent that are called a bend. One of time must also exceed the scatter of the rounds.
BEND = {"seconds": 0.1, "megabytes": 0.2}
SWEEPS = {
    "batch": "images a step",
    "classes": "classes",
    "embedding": "dimensions of the embedding",
    "processes": "processes",
}
# Why a curve may turn up or down; nothing of this is measured here.
CAUSES: dict[tuple[str, str], dict[str, str]] = {
    ("seconds", "step"): {
        "up": "the activations of more images leave the caches, so that more of the step waits for memory",
        "down": "what a step costs whatever its images (optimizer, the starts of operations) is shared by more of them",
    },
    ("seconds", "held"): {
        "up": "the matrices of images times classes and of classes times dimensions outgrow the caches, and every operation on "
        "them goes through memory",
        "down": "operations on images times classes do not grow with the dimensions; and a slow point turns a curve up before it "
        "and down after it",
    },
    ("seconds", "chunks"): {
        "up": "a chunk stays in the cache, but the class centers and their gradient do not, and are read and written in memory",
        "down": "what is done once a chunk, or once a step, is shared by more arithmetic",
    },
    ("megabytes", "step"): {
        "up": "activations, in proportion to the images, outweigh what does not depend on them",
        "down": "working memory of the convolutions does not grow with the images",
    },
    ("megabytes", "held"): {
        "up": "matrices of images times classes and of classes times dimensions outweigh what is constant",
        "down": "those of images times classes do not grow with the dimensions, and not all matrices live at the same time",
    },
    ("megabytes", "chunks"): {
        "up": "the gradient of the class centers outweighs the chunks, which do not grow with the classes",
        "down": "chunks have a largest size",
    },
}


def growth(stored: dict[str, Any]) -> str:
    """Times, exponents of time, and memory."""
    table = stored["tables"].get("growth")
    if table is None:
        return ""
    lines = ["| | form | at | ms | exponents of time | extra MB |", "| --- | --- | --- | --- | --- | --- |"]
    for sweep, forms in table["curves"].items():
        for form, points in forms.items():
            values = ", ".join(f"{point['value']:,}" for point in points)
            times = ", ".join(f"{1e3 * point['seconds']:.0f}" for point in points)
            memory = ", ".join(f"{point['megabytes']:.0f}" for point in points)
            exponents = ", ".join(f"{slope:.2f}" for slope in slopes(points, "seconds"))
            lines.append(f"| {SWEEPS[sweep]} | {form} | {values} | {times} | {exponents} | {memory} |")
    return "\n".join([*lines, "", measured_with([table])])


def bends(stored: dict[str, Any]) -> str:
    """Every bend with its exponents and its likely cause, and what else the points say."""
    table = stored["tables"].get("growth")
    if table is None:
        return ""
    found = [
        bend
        for sweep, forms in table["curves"].items()
        for form, points in forms.items()
        for quantity in ("seconds", "megabytes")
        for bend in _bends_of(sweep, form, points, quantity)
    ]
    return "\n".join(f"- {line}" for line in [*found, *_facts(table)])


def slopes(points: list[Point], quantity: str) -> list[float]:
    """Exponent of growth between neighbors."""
    return [_slope(a, b, a[quantity], b[quantity]) for a, b in zip(points, points[1:], strict=False)]


def _slope(a: Point, b: Point, low: float, high: float) -> float:
    return math.log(max(high, 1e-9) / max(low, 1e-9)) / math.log(b["value"] / a["value"])


def _range(a: Point, b: Point, quantity: str) -> tuple[float, float]:
    """The smallest and the largest exponent that the rounds allow."""
    if quantity != "seconds":
        return (_slope(a, b, a[quantity], b[quantity]),) * 2
    return _slope(a, b, a["slowest"], b["fastest"]), _slope(a, b, a["fastest"], b["slowest"])


def _bends_of(sweep: str, form: str, points: list[Point], quantity: str) -> list[str]:
    found, exponents = [], slopes(points, quantity)
    ranges = [_range(a, b, quantity) for a, b in zip(points, points[1:], strict=False)]
    for index in range(1, len(exponents)):
        before, after = exponents[index - 1], exponents[index]
        apart = ranges[index - 1][1] < ranges[index][0] or ranges[index - 1][0] > ranges[index][1]
        if abs(after - before) < BEND[quantity] or not apart:
            continue
        what = "Time" if quantity == "seconds" else "Memory"
        cause = CAUSES[quantity, form]["up" if after > before else "down"]
        found.append(
            f"{what}, {form}, over {SWEEPS[sweep]}: at {points[index]['value']:,} the exponent goes from {before:.2f} to "
            f"{after:.2f}. Explanation, not measured: {cause}."
        )
    return found


def _facts(table: dict[str, Any]) -> list[str]:
    curves, sizes = table["curves"], table["sizes"]
    held, chunks = curves["classes"]["held"][-1], curves["classes"]["chunks"][-1]
    centers = sizes["width"] * 4 / 1e6
    factor = chunks["value"] / held["value"]
    gradient = centers * chunks["value"]
    relation = "is part" if gradient <= chunks["megabytes"] else "is not part"
    found = [
        f"The gradient of the class centers, {gradient:,.0f} MB of {chunks['value']:,} classes, {relation} of the "
        f"{chunks['megabytes']:,.0f} MB of a step in chunks."
    ]
    if factor > 1:
        found.append(
            f"Logits are held up to {held['value']:,} classes, where a step takes {held['megabytes']:,.0f} MB; of "
            f"{chunks['value']:,} it would take {factor:.0f} times that, {factor * held['megabytes'] / 1e3:.1f} GB, beside "
            f"{2 * centers * chunks['value'] / 1e3:.1f} GB of the centers of student and teacher, more than small machines have."
        )
    return [*found, *_repeated(curves, sizes), *_processes(curves)]


def _repeated(curves: dict[str, Any], sizes: dict[str, int]) -> list[str]:
    """Nearly the same step is in two sweeps: what its times differ by, beyond the classes, is noise of the points."""
    same = [point for point in curves["embedding"]["held"] if point["value"] == sizes["width"]]
    near = min(curves["classes"]["held"], key=lambda point: abs(point["value"] - sizes["classes"]))
    if not same:
        return []
    expected = near["seconds"] * sizes["classes"] / near["value"]
    return [
        f"A measure of the scatter between processes: held, {sizes['width']} dimensions, {sizes['classes']:,} classes is a point of "
        f"the sweep over dimensions, with {1e3 * same[0]['seconds']:.0f} ms, and by that over classes it should take "
        f"{1e3 * expected:.0f}. A bend that such a difference would make may be none."
    ]


def _processes(curves: dict[str, Any]) -> list[str]:
    first, *others = curves["processes"]["split"]
    return [
        f"{point['value']} processes take {point['seconds'] / first['seconds']:.2f} of the time and "
        f"{point['megabytes'] / max(first['megabytes'], 1e-9):.2f} of the memory of one, where {1 / point['value']:.2f} would be "
        "the ideal. Explanation, not measured: embeddings and the sums of the softmax go from process to process."
        for point in others
    ]
