"""Markdown of what `make bench` measured: its targets, its tables, its time, and the page of all of them."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from benchmark_growth import bends, growth
from benchmark_text import chunk_counts, contrastive_bound, slow_forms, trainer_cost
from benchmark_versions import measured_with, version_of


Table = dict[str, Any]
PICTURE = "![Growth of a step](growth.png)"


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def page(stored: dict[str, Any]) -> str:
    """Everything that is stored."""
    text = "# Benchmarks\n\nMade by `make bench`; [Speed](../speed.md) says how it is measured and what follows.\n\n"
    parts = {
        "Time": seconds(stored),
        "Targets": targets(stored),
        "What follows": "\n".join(
            f"- {found}" for found in (part(stored) for part in (trainer_cost, contrastive_bound, slow_forms)) if found
        ),
        "Classes from which losses go in chunks": chunk_counts(stored),
        "Tables": comparisons(stored),
        "Growth": "\n\n".join((growth(stored), PICTURE, bends(stored))) if "growth" in stored["tables"] else "",
    }
    return text + "\n\n".join(f"## {title}\n\n{part}" for title, part in parts.items() if part) + "\n"


def seconds(stored: dict[str, Any]) -> str:
    """The commands, how long each script took, and which code it measured."""
    scripts = stored.get("scripts", {})
    if not scripts:
        return f"`{stored['command']}`; how long it took was not stored."
    total = sum(about["seconds"] for about in scripts.values())
    rows = [
        [f"`{name}`", f"`{about['options']}`", f"{about['seconds']:.0f}", _versions(stored, about)]
        for name, about in scripts.items()
    ]
    rows.append(["all", "", f"{total:.0f}", ""])
    late = "" if total < 1200 else ", **more than the 20 that are aimed at**"
    commands = [f"`{command}`" for command in _commands(stored, scripts)]
    said = f"{commands[0]} took {total / 60:.1f} minutes{late}."
    if len(commands) > 1:
        # A command whose scripts others ran again took another time.
        said = f"These scripts, last run by {' and by '.join(commands)}, took {total / 60:.1f} minutes together{late}."
    made = {name for about in scripts.values() for name in about.get("tables", [])}
    if made < set(stored.get("tables", {})):
        said = (
            f"Of {' and '.join(commands)} these took {total / 60:.1f} minutes; other tables are of an earlier version."
        )
    return f"{said}\n\n{markdown(['script', 'options', 'seconds', 'code'], rows)}"


def _commands(stored: dict[str, Any], scripts: dict[str, Any]) -> list[str]:
    """What the scripts were run by, each once; older files have one command for all."""
    return list(dict.fromkeys(about.get("command", stored["command"]) for about in scripts.values()))


def _versions(stored: dict[str, Any], about: dict[str, Any]) -> str:
    tables = [stored["tables"][name] for name in about.get("tables", [])]
    return ", ".join(dict.fromkeys(version_of(table) for table in tables))


def comparisons(stored: dict[str, Any]) -> str:
    """A table a comparison."""
    return "\n\n".join(_comparison(table) for table in stored["tables"].values() if "rows" in table)


def targets(stored: dict[str, Any]) -> str:
    """Everything that is aimed at, whether it was reached, and against whom."""
    tables = [table for table in stored["tables"].values() if "rows" in table]
    rows, aiming = [row for table in tables for row in _aims(table)], [table for table in tables if any(_aims(table))]
    headings = [
        "what",
        "",
        "measured",
        "quartiles",
        "by processor time",
        "aimed at",
        "",
        "compared with",
        "thresholds",
    ]
    return f"{markdown(headings, rows)}\n\n{measured_with(aiming)}"


def value_of(table: Table, column: str, name: str) -> float | None:
    """What a table says of a case: a further column, its difference, or its median."""
    if column == "median_s":
        return float(row_of(table, name)["median_s"])
    values = table["agreement"] if column == "difference" else table["columns"][column]
    return values.get(name)


def row_of(table: Table, name: str) -> dict[str, Any]:
    """The row of a case."""
    return next(row for row in table["rows"] if row["name"] == name)


def number(column: str, value: float) -> str:
    """A value of a column, with its unit where the column has none in its name."""
    if column == "median_s":
        return time(value)
    if column == "difference" or "float64" in column:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def time(value: float) -> str:
    """Seconds, in the unit that suits them."""
    scale, unit = (1, "s") if value >= 1 else (1e3, "ms") if value >= 1e-3 else (1e6, "µs")
    return f"{scale * value:.3g} {unit}"


def _aims(table: Table) -> Iterator[list[str]]:
    what, settings = re.split("[:;]", table["title"])[0], table["machine"]["allocator"]
    for name, target in table["targets"].items():
        row = row_of(table, name)
        low, high = row["ratio_low"], row["ratio_high"]
        measured = [f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}", f"{row['cpu_ratio']:.2f}", f"≥ {target:g}"]
        narrow = ", by less than its noise" if low < target < high else ""
        verdict = _verdict(row["ratio"] >= target) + narrow
        yield [what, f"{name}: ratio", *measured, verdict, table["against"], settings]
    for column, limits in table["limits"].items():
        for name, limit in limits.items():
            value = value_of(table, column, name)
            if value is None or (column == "difference" and name not in table["targets"]):
                continue
            label = f"{name}: {'time' if column == 'median_s' else column}"
            aimed = [number(column, value), "", "", f"≤ {number(column, limit)}", _verdict(value <= limit)]
            yield [what, label, *aimed, table["against"], settings]


def _verdict(reached: bool) -> str:
    return "met" if reached else "**not met**"


def _comparison(table: Table) -> str:
    headings = ["", "median", "ratio", "quartiles", "by processor time", "target", "difference", *table["columns"]]
    rows = [_measured(row, table) for row in table["rows"]]
    notes = "".join(f"\n- {note}" for note in table["notes"])
    machine = table["machine"]
    instructions = f" ({machine['instructions']})" if "instructions" in machine else ""
    hardware = f"{machine['processor']}{instructions}, {machine['threads']} threads, {machine['device']}, torch {machine['torch']}"
    about = f"{hardware}; {table['rounds']} rounds; {machine['allocator']} thresholds of glibc"
    rivals, code = f"compared with: {table['against']}", f"measured with {version_of(table)} of the code"
    return f"**{table['title']}**\n\n{markdown(headings, rows)}\n{notes}\n\n{about}; {rivals}; {code}."


def _measured(row: dict[str, Any], table: Table) -> list[str]:
    name, target = row["name"], table["targets"].get(row["name"])
    return [
        name,
        _limited(table, "median_s", name),
        f"{row['ratio']:.2f}",
        f"{row['ratio_low']:.2f} to {row['ratio_high']:.2f}",
        f"{row['cpu_ratio']:.2f}",
        "" if target is None else f"{target:g}",
        *(_limited(table, column, name) for column in ("difference", *table["columns"])),
    ]


def _limited(table: Table, column: str, name: str) -> str:
    value, limit = value_of(table, column, name), table["limits"].get(column, {}).get(name)
    if value is None:
        return ""
    return number(column, value) + ("" if limit is None else f" (≤ {number(column, limit)})")
