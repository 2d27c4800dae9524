"""The table and the plots of a comparison, from its JSON file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ..evaluation import (
    Calibration,
    PairedDifference,
    Summary,
    compare_paired,
    plot_comparison,
    plot_curves_with_bands,
    plot_reliability,
    plot_similarities,
    summarize,
)
from .comparison import cell_name
from .comparison_checks import AROUND


# Of what was measured on the test images: its key, and how it is written.
_MEASURES = {
    "CKA with the teacher": ("cka", 1, 3),
    "agreement with the teacher": ("agreement", 100, 1),
    "accuracy through the teacher's head": ("teacher_head_accuracy", 100, 1),
    "teacher's embedding through its head": ("student_head_on_teacher", 100, 1),
    "alignment with its own classes": ("alignment", 1, 3),
    "alignment with the teacher's classes": ("teacher_alignment", 1, 3),
    "similarity of the heads": ("head_similarity", 1, 3),
    "effective dimension": ("effective_dimension", 1, 1),
    "calibration error": ("expected_calibration_error", 100, 1),
}
# Of them, the panels of the plot.
_PLOTTED = (
    "CKA with the teacher",
    "agreement with the teacher",
    "accuracy through the teacher's head",
    "effective dimension",
)


def render_comparison(content: Mapping[str, Any]) -> str:
    """
    The table of accuracies and costs, in Markdown. The mean over classes has a column where classes differ in size.

    Args:
        content (`Mapping[str, Any]`): What the JSON file of [`ComparisonResults`] holds.
    """
    baseline, last, best = content["baseline"], _values(content), _values(content, weights="best")
    per_class = _values(content, "mean_per_class_accuracy")
    differences = compare_paired(last, baseline) if baseline in last else {}
    columns = {
        "method": {row: row for row in last},
        "seeds": {row: str(len(values)) for row, values in last.items()},
        "test accuracy": _means(last),
        **({} if _are_close(last, per_class) else {"mean over classes": _means(per_class)}),
        "at the best epoch": _means(best),
        f"against {baseline}": {row: _difference(found) for row, found in differences.items()},
        "p": {row: _p_value(found) for row, found in differences.items()},
        **_costs(content),
    }
    if "published" in content:
        found = content["published"]
        columns[f"published: {found['source']}"] = {row: f"{value:.2f}" for row, value in found["values"].items()}
    return _markdown(columns, list(last))


def render_analysis(content: Mapping[str, Any]) -> str:
    """
    What the methods do to the embedding, means over the seeds, in Markdown.

    Args:
        content (`Mapping[str, Any]`): What the JSON file of [`ComparisonResults`] holds.
    """
    rows = list(_rows(content))
    columns: dict[str, dict[str, str]] = {"method": {row: row for row in rows}}
    for title, (name, scale, digits) in _MEASURES.items():
        found = {row: fmean(values.values()) for row, values in _values(content, name).items()}
        columns[title] = {row: f"{scale * value:.{digits}f}" for row, value in found.items()}
    return _markdown(columns, rows)


def write_report(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """
    Writes `table.md` and the plots.

    Args:
        content (`Mapping[str, Any]`): What the JSON file of [`ComparisonResults`] holds.
        folder (`Path`): Where to.

    Returns:
        `list[Path]`: The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "table.md"
    table.write_text(f"{render_comparison(content)}\n\n{render_analysis(content)}\n", encoding="utf-8")
    summaries, title = summarize(_values(content)), content["title"] or "Test accuracy"
    calibrations = {row: _calibration(cells) for row, cells in _rows(content).items()}
    curves = {row: [cell["curve"] for cell in cells.values()] for row, cells in _rows(content).items()}
    plots = [
        plot_curves_with_bands(curves, folder / "curves.png"),
        plot_reliability(calibrations, folder / "reliability.png"),
        plot_similarities(_similarities(content), folder / "similarity.png"),
    ]
    if content["baseline"] in summaries:
        plots.append(plot_comparison(summaries, folder / "accuracy.png", content["baseline"], title))
    return [table, *plots]


def _rows(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    # Without teachers, which are no rivals.
    return {row: content["cells"][row]["seeds"] for row in content["rows"] if row in content["cells"]}


def _values(content: Mapping[str, Any], name: str = "accuracy", weights: str = "last") -> dict[str, dict[int, float]]:
    found = {
        row: {int(seed): (cell[weights] or {}).get(name) for seed, cell in sorted(cells.items())}
        for row, cells in _rows(content).items()
    }
    known = {row: {seed: v for seed, v in values.items() if v is not None} for row, values in found.items()}
    return {row: values for row, values in known.items() if values}


def _markdown(columns: Mapping[str, Mapping[str, str]], rows: Sequence[str]) -> str:
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[cells.get(row, "") for cells in columns.values()] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _are_close(first: dict[str, dict[int, float]], second: dict[str, dict[int, float]]) -> bool:
    pairs = ((value, second[row][seed]) for row, values in first.items() for seed, value in values.items())
    return all(abs(one - other) < 1e-9 for one, other in pairs)


def _means(values: dict[str, dict[int, float]]) -> dict[str, str]:
    return {row: _mean_and_deviation(found) for row, found in summarize(values).items()}


def _mean_and_deviation(summary: Summary) -> str:
    if summary.standard_deviation is None:
        return f"{100 * summary.mean:.2f}"
    return f"{100 * summary.mean:.2f} ± {100 * summary.standard_deviation:.2f}"


def _difference(found: PairedDifference) -> str:
    if found.mean is None:
        return ""
    if found.low is None or found.high is None:
        return f"{100 * found.mean:+.2f}"
    return f"{100 * found.mean:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"


def _p_value(found: PairedDifference) -> str:
    return "" if found.p_adjusted is None else f"{found.p_adjusted:.2g}"


def _costs(content: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    seconds, memory, further = {}, {}, {}
    for row, cells in _rows(content).items():
        costs = [cell["cost"] for cell in cells.values()]
        peaks = [cost["peak_memory_mib"] for cost in costs if cost["peak_memory_mib"] is not None]
        seconds[row] = f"{fmean(_seconds(content, row, seed) for seed in cells):.0f}"
        memory[row] = f"{max(peaks):.0f}" if peaks else ""
        further[row] = f"{costs[0]['training_only_parameters']:,}"
    return {"seconds": seconds, "MiB": memory, "further parameters": further}


def _seconds(content: Mapping[str, Any], row: str, seed: str) -> float:
    """Of all trainings that the student of a cell takes, but that of the teacher, which all rows share."""
    found = content["cells"][row]
    own = found["seeds"][seed]["cost"]["train_seconds"]
    temporary = found["options"].get("temporary_student")
    before = [] if temporary is None else [temporary, AROUND + temporary]
    for name in before:
        if seed not in content["cells"].get(name, {"seeds": {}})["seeds"]:
            raise ValueError(
                f"the results have {cell_name(row, int(seed))}, but not {cell_name(name, int(seed))} of it"
            )
    return own + sum(_seconds(content, name, seed) for name in before)


def _calibration(cells: Mapping[str, Any]) -> Calibration:
    return Calibration(**next(iter(cells.values()))["last"]["calibration"])


def _similarities(content: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for title in _PLOTTED:
        for row, values in _values(content, _MEASURES[title][0]).items():
            found.setdefault(row, {})[title] = fmean(values.values())
    return found
