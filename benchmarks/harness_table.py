"""The tables of the benchmarks: as text, as JSON, and what they were measured on."""

import hashlib
import json
import math
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch


PACKAGES = ("torch", "transformers", "accelerate", "numpy")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _code_version() -> str:
    """Of the package, with a digest over everything that is measured: all of its sources, and these scripts."""
    package, digest = find_spec("headshare_hf"), hashlib.sha256()
    for folder in (*package.submodule_search_locations, Path(__file__).parent):
        for path in sorted(Path(folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return f"{_version('headshare_hf')}+{digest.hexdigest()[:12]}"


# As of the start of the script, like what it imports: a file may be edited while it runs.
CODE = _code_version()


def add_table(output: Path | None, name: str, table: dict[str, Any]) -> None:
    """Writes `table` under `name` into the JSON file `output`, beside what is there; nothing where `output` is `None`."""
    if output is None:
        return
    tables = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(_finite({**tables, name: table}), indent=1) + "\n", encoding="utf-8")


def machine(device: str = "cpu") -> dict[str, Any]:
    """Processor with the instructions that PyTorch uses of it, accelerator, threads and versions, that of our code too."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": processor or platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "python": platform.python_version(),
        "code": CODE,
        **{package: _version(package) for package in PACKAGES},
    }


def as_text(table: dict[str, Any]) -> str:
    """The table for a terminal."""
    unit, scale = time_unit([row["median_s"] for row in table["rows"]])
    headings = ["", unit, "quietest..slowest", "ratio", "quartiles", "cpu", "target", "difference", *table["columns"]]
    lines = [headings, *(_cells(row, table, scale) for row in table["rows"])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    shown = [
        "  ".join(cell.ljust(width) if not number else cell.rjust(width) for number, (cell, width) in enumerate(pairs))
        for pairs in (zip(line, widths, strict=True) for line in lines)
    ]
    about = ", ".join(f"{key} {value}" for key, value in table["machine"].items() if isinstance(value, (str, int)))
    return "\n".join([f"\n{table['title']}", *shown, *(f"- {note}" for note in table["notes"]), f"[{about}]"])


def time_unit(seconds: Sequence[float]) -> tuple[str, float]:
    """The unit in which the longest of these times reads well, and what seconds are multiplied by to have it."""
    longest = max(seconds)
    return ("s", 1.0) if longest >= 1 else ("ms", 1e3) if longest >= 1e-3 else ("us", 1e6)


def _cells(row: dict[str, Any], table: dict[str, Any], scale: float) -> list[str]:
    name = row["name"]
    target, difference = table["targets"].get(name), table["agreement"].get(name)
    limits = {column: values.get(name) for column, values in table["limits"].items()}
    extra = [_limited(values.get(name), limits.get(column), "{:.4g}") for column, values in table["columns"].items()]
    return [
        name,
        f"{row['median_s'] * scale:.3f}" + _at_most(limits.get("median_s"), "{:.4g}", scale),
        f"{row['min_s'] * scale:.3f}..{row['max_s'] * scale:.3f}",
        f"{row['ratio']:.2f}",
        f"{row['ratio_low']:.2f}..{row['ratio_high']:.2f}",
        f"{row['cpu_ratio']:.2f}",
        "" if target is None else f"{target:g}",
        _limited(difference, limits.get("difference"), "{:.1e}"),
        *extra,
    ]


def _limited(value: float | None, limit: float | None, form: str) -> str:
    return "" if value is None else form.format(value) + _at_most(limit, form)


def _at_most(limit: float | None, form: str, scale: float = 1.0) -> str:
    return "" if limit is None else f" (<= {form.format(limit * scale)})"


def _finite(value: Any) -> Any:
    """JSON has no word for a number that is none."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
