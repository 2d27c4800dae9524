"""What the JSON file of a comparison holds, row by row, and how tables write it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..evaluation import PairedDifference, Summary, summarize
from .comparison_checks import AROUND, OTHER_ROWS, TEACHER, nearest


def student_rows(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Cells of every row of the comparison by their seed, without the teachers that it trains for them."""
    return {row: content["cells"][row]["seeds"] for row in content["rows"] if row in content["cells"]}


def needed_rows(options: Mapping[str, Any]) -> list[str]:
    """Rows whose networks one with these options takes, beside the ordinary teacher, which is everybody's."""
    temporary, teacher = (options.get(name) for name in OTHER_ROWS)
    return [name for name in (temporary, temporary and AROUND + temporary, teacher) if name]


def restrict_results(
    content: Mapping[str, Any], rows: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> dict[str, Any]:
    """
    Results as they are shown of some rows and seeds. What these rows need stays there for their costs, and is no row.

    Args:
        content (`Mapping[str, Any]`): What the JSON file of [`ComparisonResults`] holds.
        rows (`Sequence[str]`, *optional*): These, and the baseline. Default: all.
        seeds (`Sequence[int]`, *optional*): Of all but the ordinary teacher, which has its own. Default: all.

    Raises:
        ValueError: There are no results of a row or with a seed; says of which and with which there are.
    """
    _check_measured(student_rows(content), rows or (), seeds or ())
    kept = content["rows"] if rows is None else [row for row in content["rows"] if row in {*rows, content["baseline"]}]
    needed = _with_needed(content, content["cells"] if rows is None else kept)
    cells = {
        row: found if seeds is None or row == TEACHER else {**found, "seeds": _of_seeds(found["seeds"], seeds)}
        for row, found in content["cells"].items()
        if row in needed or not row.startswith(AROUND)
    }
    return {**content, "cells": cells, "rows": [row for row in kept if row in cells and cells[row]["seeds"]]}


def _check_measured(found: Mapping[str, Any], rows: Sequence[str], seeds: Sequence[int]) -> None:
    if not found:
        raise ValueError("there are no results of students yet, which tables and plots are made of; train some first")
    known = sorted({int(seed) for cells in found.values() for seed in cells})
    for seed in seeds:
        if seed not in known:
            raise ValueError(f"there are no results with seed {seed}, but with {', '.join(map(str, known))}")
    for row in rows:
        if row not in found:
            raise ValueError(f"there are no results of row {row!r}{nearest(row, found)}")
        if seeds and not _of_seeds(found[row], seeds):
            raise ValueError(f"there are no results of row {row!r} with these seeds, but with {', '.join(found[row])}")


def _of_seeds(cells: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    return {seed: cell for seed, cell in cells.items() if int(seed) in seeds}


def _with_needed(content: Mapping[str, Any], rows: Iterable[str]) -> set[str]:
    found, left = set[str](), list(rows)
    while left:
        row = left.pop()
        if row not in found:
            found.add(row)
            left += needed_rows(content["cells"].get(row, {"options": {}})["options"])
    return found


def values_of(
    rows: Mapping[str, Mapping[str, Any]], name: str = "accuracy", weights: str = "last"
) -> dict[str, dict[int, float]]:
    """
    A number by row and seed, without rows that lack it.

    Args:
        rows (`Mapping[str, Mapping[str, Any]]`): Cells, as of [`student_rows`].
        name (`str`): What was measured; `own_teacher.cka` is beside the row's own teacher.
        weights (`str`): `last` or `best`.
    """
    found = {
        row: {int(seed): _find(cell[weights], name) for seed, cell in sorted(cells.items())}
        for row, cells in rows.items()
    }
    known = {row: {seed: v for seed, v in values.items() if v is not None} for row, values in found.items()}
    return {row: values for row, values in known.items() if values}


def _find(measured: Any, name: str) -> Any:
    for part in name.split("."):
        measured = (measured or {}).get(part)
    return measured


def markdown(columns: Mapping[str, Mapping[str, str]], rows: Sequence[str]) -> str:
    """A table of these rows; a cell that a column lacks is empty."""
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[cells.get(row, "") for cells in columns.values()] for row in rows]
    escaped = ([cell.replace("|", "\\|") for cell in cells] for cells in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)


def lacking_seeds(values: Mapping[str, Mapping[int, float]], wanted: Mapping[str, Iterable[int]]) -> dict[str, str]:
    """Of each row that has no value for seeds which are wanted of it, these."""
    lacking = {row: sorted(set(seeds) - values.get(row, {}).keys()) for row, seeds in wanted.items()}
    return {row: ", ".join(map(str, seeds)) for row, seeds in lacking.items() if seeds}


def missing_seeds(values: Mapping[str, Mapping[int, float]]) -> list[str]:
    """What a legend says of rows that lack seeds which others have: a method that failed with one must not look better."""
    known = {seed for found in values.values() for seed in found}
    said = [f"{row} of {seeds}" for row, seeds in lacking_seeds(values, dict.fromkeys(values, known)).items()]
    if not said:
        return []
    return [
        f"Seeds without a result, because they were not run or failed: {'; '.join(said)}. Means are over the others."
    ]


def means(values: Mapping[str, Mapping[int, float]]) -> dict[str, str]:
    """Mean and standard deviation over the seeds, in per cent, by row."""
    return {row: _mean_and_deviation(found) for row, found in summarize(values).items()}


def _mean_and_deviation(summary: Summary) -> str:
    if summary.standard_deviation is None:
        return f"{100 * summary.mean:.2f}"
    return f"{100 * summary.mean:.2f} ± {100 * summary.standard_deviation:.2f}"


def difference_columns(baseline: str, differences: Mapping[str, PairedDifference]) -> dict[str, dict[str, str]]:
    """Columns of paired differences, in points, with their intervals, and of their p values."""
    return {
        f"difference from {baseline}, points [95 % interval]": {
            row: _difference(found) for row, found in differences.items()
        },
        "p": {row: f"{found.p_adjusted:.2g}" for row, found in differences.items() if found.p_adjusted is not None},
    }


def _difference(found: PairedDifference) -> str:
    if found.mean is None:
        return ""
    if found.low is None or found.high is None:
        return f"{100 * found.mean:+.2f}"
    return f"{100 * found.mean:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"


def difference_legend(baseline: str, differences: Mapping[str, PairedDifference]) -> str:
    """What these columns are."""
    counts = sorted({len(found.seeds) for found in differences.values()})
    number = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "no"
    return (
        f"Difference from {baseline}: paired seed by seed, with the 95 % interval of a paired t-test over {number} "
        f"seed{'' if counts == [1] else 's'}; p: of that test, corrected for the number of rows (Holm)."
    )


def published_column(content: Mapping[str, Any], rows: Iterable[str]) -> dict[str, dict[str, str]]:
    """The column of somebody else's numbers, where there are any of these rows; each says its source if it is another."""
    found = content.get("published", {"values": {}})
    sources = found.get("sources", {})
    cells = {
        row: f"{value:.2f}" + (f" ({sources[row]})" if row in sources else "")
        for row, value in found["values"].items()
        if row in set(rows)
    }
    title = "published, %" if found.get("source") is None else f"published, %: {found['source']}"
    return {title: cells} if cells else {}


def published_legend(content: Mapping[str, Any]) -> str:
    """What to mind when ours stand beside them."""
    share = content["comparison"].get("data", {}).get("validation_fraction")
    held_out = (
        f"; ours hold out {100 * share:g} % of the training images, which choose the best epoch" if share else ""
    )
    return f"Published: test accuracies of others, not run here{held_out}."
