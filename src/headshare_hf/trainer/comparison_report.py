"""The tables and the plots of a comparison, from its JSON file."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from ..evaluation import (
    Calibration,
    compare_paired,
    plot_comparison,
    plot_curves_with_bands,
    plot_losses_with_bands,
    plot_reliability,
    plot_similarities,
    pool_calibrations,
    summarize,
)
from .comparison import cell_name
from .comparison_teachers import render_teachers, rival_rows
from .comparison_values import (
    difference_columns,
    difference_legend,
    lacking_seeds,
    markdown,
    means,
    missing_seeds,
    needed_rows,
    published_column,
    published_legend,
    student_rows,
    values_of,
)


# Of what was measured on the test images: its key, and how it is written.
_MEASURES = {
    "CKA with the teacher": ("cka", 1, 3),
    "agreement with the teacher, %": ("agreement", 100, 1),
    "CKA with its own teacher": ("own_teacher.cka", 1, 3),
    "agreement with its own teacher, %": ("own_teacher.agreement", 100, 1),
    "accuracy through the teacher's head, %": ("teacher_head_accuracy", 100, 1),
    "accuracy of both heads mixed, %": ("mixed_accuracy", 100, 1),
    "teacher's embedding through its head, %": ("student_head_on_teacher", 100, 1),
    "alignment with its own classes": ("alignment", 1, 3),
    "alignment with the teacher's classes": ("teacher_alignment", 1, 3),
    "similarity of the heads": ("head_similarity", 1, 3),
    "effective dimension": ("effective_dimension", 1, 1),
    "calibration error, %": ("expected_calibration_error", 100, 1),
}
# What a network is by itself. Beside the ordinary teacher another training of the same network says little, and the one
# with its seed, which is the teacher itself, nothing.
_OF_ITSELF = ("alignment", "effective_dimension", "expected_calibration_error")
# Of them, the panels of the plot.
_PLOTTED = (
    "CKA with the teacher",
    "agreement with the teacher, %",
    "accuracy through the teacher's head, %",
    "similarity of the heads",
    "alignment with its own classes",
    "alignment with the teacher's classes",
    "effective dimension",
)
_ANALYSIS_LEGEND = (
    "Means over the seeds, on the test images. The teacher is the ordinary one, its own teacher the one that a row was "
    "distilled from where that is another. Mixed: (1 − a) p + a p_TH of the student's head and that of the teacher that it "
    "was distilled from, both on the student's embedding, a being the alpha_th of the row, or 0.5."
)


def render_comparison(content: Mapping[str, Any]) -> str:
    """
    The table of accuracies and costs, in Markdown, with a legend. The mean over classes has a column where classes differ
    in size.

    Args:
        content (`Mapping[str, Any]`): What the JSON file of [`ComparisonResults`] holds.
    """
    rows, baseline = rival_rows(content), content["baseline"]
    last, best = values_of(rows), values_of(rows, weights="best")
    per_class = values_of(rows, "mean_per_class_accuracy")
    differences = compare_paired(last, baseline) if baseline in last else {}
    published = published_column(content, last)
    columns = {
        "method": {row: row for row in last},
        "seeds": {row: str(len(values)) for row, values in last.items()},
        "test accuracy, % (mean ± standard deviation)": means(last),
        **({} if _are_close(last, per_class) else {"mean over classes, %": means(per_class)}),
        "at the best epoch, %": means(best),
        **difference_columns(baseline, differences),
        **_costs(content),
        **published,
    }
    legend = [
        "±: standard deviation over the seeds.",
        *([difference_legend(baseline, differences)] if differences else []),
        *missing_seeds(last),
        *_unlike_machines(rows),
        "Seconds: of all trainings of one student, those of its temporary student and of a teacher of its own included, "
        "without that of the ordinary teacher. Memory: the peak, of the process on a CPU, of the allocator on an accelerator; it "
        "has buffers too, as CRD's memories of all images are, which are no parameters.",
        *([published_legend(content)] if published else []),
    ]
    return f"{markdown(columns, list(last))}\n\n{' '.join(legend)}"


def render_analysis(content: Mapping[str, Any]) -> str:
    """
    What the methods do to the embedding, means over the seeds, in Markdown, with a legend.

    Args:
        content (`Mapping[str, Any]`): What the JSON file of [`ComparisonResults`] holds.
    """
    rows = student_rows(content)
    columns: dict[str, dict[str, str]] = {"method": {row: row for row in rows}}
    for title, (name, scale, digits) in _MEASURES.items():
        found = {row: fmean(values.values()) for row, values in _measured(content, name).items()}
        if name == "mixed_accuracy":
            # The head of the teacher that a row was distilled from is the one that its student shares.
            own = _measured(content, f"own_teacher.{name}")
            found |= {row: fmean(values.values()) for row, values in own.items()}
        columns[title] = {row: f"{scale * value:.{digits}f}" for row, value in found.items()}
    return f"{markdown(columns, list(rows))}\n\n{' '.join([_ANALYSIS_LEGEND, *_collapsed(rows)])}"


def _collapsed(rows: Mapping[str, Any]) -> list[str]:
    """What the legend says of networks that are missing in the means of what embeddings are like."""
    lacking = lacking_seeds(values_of(rows, "effective_dimension"), values_of(rows))
    said = [f"{row} with seed {seeds}" for row, seeds in lacking.items()]
    return [f"One embedding for all images, and so without directions: {'; '.join(said)}."] if said else []


def _measured(content: Mapping[str, Any], name: str) -> dict[str, dict[int, float]]:
    return values_of((student_rows if name in _OF_ITSELF else rival_rows)(content), name)


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
    table, rows = folder / "table.md", student_rows(content)
    tables = [render_comparison(content), render_teachers(content), render_analysis(content)]
    table.write_text("\n\n".join(filter(None, tables)) + "\n", encoding="utf-8")
    summaries, title = summarize(values_of(rival_rows(content))), content["title"] or "Test accuracy"
    plots = [
        plot_curves_with_bands(_curves(rows, "curve"), folder / "curves.png"),
        plot_reliability(
            {row: _calibration(cells) for row, cells in rows.items()},
            folder / "reliability.png",
            "bins of all seeds together, ECE their mean",
        ),
        plot_similarities(_similarities(content), folder / "similarity.png"),
    ]
    losses = _curves(rows, "loss_curve")
    if losses:
        plots.append(plot_losses_with_bands(losses, folder / "losses.png"))
    if content["baseline"] in summaries:
        plots.append(plot_comparison(summaries, folder / "accuracy.png", content["baseline"], title))
    return [table, *plots]


def _curves(rows: Mapping[str, Any], name: str) -> dict[str, list[Any]]:
    # Older files have no losses, and where `logging_strategy` is "no" there are none. Seeds that were logged at other steps
    # than the first have no common line: how often a run is logged may differ.
    found = {row: [cell.get(name) for cell in cells.values()] for row, cells in rows.items()}
    return {row: curves for row, curves in found.items() if all(curves) and _are_aligned(curves)}


def _are_aligned(curves: list[Any]) -> bool:
    epochs = [sorted(epoch for epoch, _ in curve) for curve in curves]
    return all(found == epochs[0] for found in epochs)


def _unlike_machines(rows: Mapping[str, Any]) -> list[str]:
    """What to mind where seconds and memory are of different machines, or of different shares of one."""
    costs = [cell["cost"] for cells in rows.values() for cell in cells.values()]
    found = {(cost["device"], cost["threads"]) for cost in costs if "device" in cost and "threads" in cost}
    shares = [device + (f" with {threads} threads" if device == "cpu" else "") for device, threads in sorted(found)]
    kinds = list(dict.fromkeys(shares))
    return [f"Seconds and memory are of {', '.join(kinds)}, which are not alike."] if len(kinds) > 1 else []


def _are_close(first: dict[str, dict[int, float]], second: dict[str, dict[int, float]]) -> bool:
    pairs = ((value, second[row][seed]) for row, values in first.items() for seed, value in values.items())
    return all(abs(one - other) < 1e-9 for one, other in pairs)


def _costs(content: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    seconds, memory, published, further = {}, {}, {}, {}
    for row, cells in rival_rows(content).items():
        costs = [cell["cost"] for cell in cells.values()]
        peaks = [cost["peak_memory_mib"] for cost in costs if cost["peak_memory_mib"] is not None]
        seconds[row] = f"{fmean(_seconds(content, row, seed) for seed in cells):.0f}"
        memory[row] = f"{max(peaks):.0f}" if peaks else ""
        published[row] = f"{costs[0]['parameters']:,}"
        further[row] = f"{costs[0]['training_only_parameters']:,}"
    return {"seconds": seconds, "memory, MiB": memory, "parameters": published, "parameters in training only": further}


def _seconds(content: Mapping[str, Any], row: str, seed: str) -> float:
    """Of all trainings that the student of a cell takes, but that of the teacher, which all rows share."""
    found = content["cells"][row]
    own = found["seeds"][seed]["cost"]["train_seconds"]
    before = needed_rows(found["options"])
    for name in before:
        if seed not in content["cells"].get(name, {"seeds": {}})["seeds"]:
            raise ValueError(
                f"the results have {cell_name(row, int(seed))}, but not {cell_name(name, int(seed))} of it"
            )
    return own + sum(_seconds(content, name, seed) for name in before)


def _calibration(cells: Mapping[str, Any]) -> Calibration:
    return pool_calibrations([Calibration(**cell["last"]["calibration"]) for cell in cells.values()])


def _similarities(content: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {row: {} for row in student_rows(content)}
    for title in _PLOTTED:
        name, scale, _ = _MEASURES[title]
        values = _measured(content, name)
        for row in found if values else ():
            found[row][title] = scale * fmean(values[row].values()) if row in values else None
    return found
