"""Tables of the site that are made when it is built: of the method table, of arithmetic and of stored results."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import headshare_hf
from headshare_hf.trainer import METHODS


RESULTS = Path(__file__).resolve().parents[1] / "results"
# What a file of results says of itself.
SETTING = ("command", "data", "hardware")
# Classes and width of the embedding.
CENTERS = {"CIFAR-100, resnet8x4": (100, 256), "ImageNet, ResNet50": (1000, 2048), "MS1MV3, 512 numbers": (93431, 512)}


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def sources() -> str:
    """Where the weights of every method come from."""
    rows = [[f"`{name}`", row.summary, row.source] for name, row in METHODS.items()]
    return markdown(["`method`", "what", "where the weights come from"], rows)


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


def stored_files() -> str:
    """Every stored file of results, and the command that made it."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        rows.append([f"[{path.name}](results/{path.name})", *(str(stored.get(key, "")) for key in SETTING)])
    return markdown(["file", *SETTING], rows)


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
    "exports": exports,
    "omniglot": omniglot,
    "sources": sources,
    "stored_files": stored_files,
}
