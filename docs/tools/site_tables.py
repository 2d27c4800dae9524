"""Tables of the site that are made when it is built: of the method table, of arithmetic and of stored results."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmark_growth import bends, growth
from benchmark_tables import markdown, seconds, targets
from benchmark_text import chunk_counts, compiled_steps, contrastive_bound, slow_forms, trainer_cost
from site_answers import QUESTIONS, answers, head_length
from site_needs import HEADINGS, needs
from site_pooled import pooled

import headshare_hf
from headshare_hf.losses import COMPANIONS, Companion
from headshare_hf.trainer import METHODS
from headshare_hf.trainer.comparison_report import render_analysis, render_comparison
from headshare_hf.trainer.comparison_teachers import render_teachers


RESULTS = Path(__file__).resolve().parents[1] / "results"
# What a file of results says of itself.
SETTING = ("command", "data", "hardware")
# What losses read, in words.
_READ = {
    "hidden_states": "maps",
    "pre_activations": "maps before their activation",
    "final_map": "last map",
    "embeddings": "embeddings",
    "logits": "logits",
    "head": "teacher's head",
}
# Classes and width of the embedding.
CENTERS = {"CIFAR-100, resnet8x4": (100, 256), "ImageNet, ResNet50": (1000, 2048), "MS1MV3, 512 numbers": (93431, 512)}


def sources() -> str:
    """Where the weights of every method come from that is no companion loss."""
    rows = [[f"`{name}`", row.summary, row.source] for name, row in METHODS.items() if row.companion is None]
    return markdown(["`method`", "what", "where the weights come from"], rows)


def companions() -> str:
    """Every companion loss: what it reads, its weight here, as published, and those of CE and KL beside it."""
    headings = [
        "`companion`",
        "what",
        "reads",
        "weight",
        "published",
        "CE",
        "KL",
        "`th_`",
        "where the weights come from",
    ]
    return markdown(headings, [_companion(name, row) for name, row in COMPANIONS.items()])


def _companion(name: str, row: Companion) -> list[str]:
    published = "–" if row.published_weight is None else f"{row.published_weight:g}"
    read = [_READ[field] for field in _READ if field in (*row.loss.student_needs, *row.loss.teacher_needs)]
    weights = [f"{weight:g}" for weight in (row.ce, row.kd)]
    shared = "yes" if f"th_{name}" in METHODS else "–"
    return [f"`{name}`", row.summary, ", ".join(read), f"{row.weight:g}", published, *weights, shared, row.source]


def requirements() -> str:
    """What every method asks of networks, images and the way of training."""
    return markdown(HEADINGS, needs())


def exports() -> str:
    """Every name of the package itself, with a link to its place in the reference."""
    packages = {name: getattr(headshare_hf, name).__module__.split(".")[1] for name in headshare_hf.__all__}
    rows = [[f"[`{name}`][headshare_hf.{package}.{name}]", package] for name, package in packages.items()]
    return markdown(["name", "from"], rows)


def centers() -> str:
    """Memory of a float32 matrix of class centers: frozen, and trained by SGD with momentum (10^6 bytes)."""
    rows = []
    for name, (classes, width) in CENTERS.items():
        megabytes = classes * width * 4 / 1e6
        rows.append([name, f"{classes:,}", str(width), f"{megabytes:.1f} MB", f"{3 * megabytes:.1f} MB"])
    return markdown(["", "C", "D", "frozen", "trained, SGD with momentum"], rows)


def omniglot() -> str:
    """Accuracies of the quickstart, each seed and their mean."""
    stored = json.loads((RESULTS / "omniglot.json").read_text(encoding="utf-8"))
    rows = [*stored["accuracy"].items(), *stored["other"].items()]
    headings = ["", "mean", "against KD, same seed", *(f"seed {seed}" for seed in stored["seeds"])]
    return markdown(headings, [_accuracy_row(name, values, stored["accuracy"]["KD"]) for name, values in rows])


def of_benchmarks(render: Callable[[dict[str, Any]], str]) -> str:
    """Something of what `make bench` measured last."""
    return _from_file(RESULTS / "benchmarks.json", render)


def stored_files() -> str:
    """Every stored file of results, and the command that made it."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        setting = _compared(stored) if "cells" in stored else [str(stored.get(key, "")) for key in SETTING]
        rows.append([f"[{path.name}](results/{path.name})", *setting])
    return markdown(["file", *SETTING], rows)


def _compared(stored: dict[str, Any]) -> list[str]:
    cells = [cell for row in stored["cells"].values() for cell in row["seeds"].values()]
    machines = {(cell["cost"]["device"], cell["cost"]["threads"], cell["cost"]["precision"]) for cell in cells}
    hardware = "; ".join(
        f"{device}, {threads} threads, {precision}" for device, threads, precision in sorted(machines)
    )
    return ["examples/compare.py", stored["title"], hardware]


def _from_file(path: Path, render: Callable[[dict[str, Any]], str]) -> str:
    return render(json.loads(path.read_text(encoding="utf-8")))


def _accuracy_row(name: str, values: list[float], baseline: list[float]) -> list[str]:
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    gain = "" if values == baseline else with_error(differences, sign="+")
    return [name, with_error(values), gain, *(f"{100 * value:.2f}" for value in values)]


def with_error(values: list[float], sign: str = "-") -> str:
    """Mean ± standard error in per cent; with `sign="+"`, of differences."""
    error = stdev(values) / len(values) ** 0.5
    # Not to be broken at its blanks.
    return f"{100 * mean(values):{sign}.2f}\u00a0±\u00a0{100 * error:.2f}".replace("-", "−")


TABLES = {
    "centers": centers,
    "companions": companions,
    "exports": exports,
    "head_length": head_length,
    "needs": requirements,
    "omniglot": omniglot,
    "sources": sources,
    "stored_files": stored_files,
}
# Of the benchmarks, tables and sentences.
for _render in (
    bends,
    chunk_counts,
    compiled_steps,
    contrastive_bound,
    growth,
    seconds,
    slow_forms,
    targets,
    trainer_cost,
):
    TABLES[f"benchmark_{_render.__name__}"] = partial(of_benchmarks, _render)
# Of all comparisons together.
for _name, _baseline in {"kd": "kd", "th_kd": "th_kd_0.5"}.items():
    TABLES[f"pooled_{_name}"] = partial(pooled, _baseline)
for _name in QUESTIONS:
    TABLES[f"answers_{_name}"] = partial(answers, _name)
# Of every comparison that is stored, its accuracies, its teachers, and what its methods do to the embedding.
for _path in sorted(RESULTS.glob("compare_*.json")):
    TABLES[_path.stem] = partial(_from_file, _path, render_comparison)
    TABLES[f"{_path.stem}_teachers"] = partial(_from_file, _path, render_teachers)
    TABLES[f"{_path.stem}_analysis"] = partial(_from_file, _path, render_analysis)
