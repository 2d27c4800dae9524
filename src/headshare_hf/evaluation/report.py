"""The tables of an evaluation, in Markdown: per cent, with the FAR rule named beside every number."""

from collections.abc import Mapping, Sequence
from typing import Any

from .roc import FAR_RULES


_RULE_NAMES = {"nearest": "nearest", "at_most": "at most"}
_NOTE = (
    "Rates in per cent, AUC as a fraction. TAR by rule *nearest*: at the point of the ROC curve whose FAR is nearest "
    "(insightface); by rule *at most*: the largest TAR whose FAR is not above. A dash: there are too few impostor pairs. "
    "In brackets: 95 per cent intervals of the bootstrap, 1:N over probes."
)


def render_report(record: Mapping[str, Any]) -> str:
    """
    Args:
        record (`Mapping[str, Any]`): What [`run_verification`] returns.

    Returns:
        `str`: Markdown.
    """
    sets: Mapping[str, Mapping[str, Any]] = record["sets"]
    parts = [f"# Face verification of {_model(record['model'])}{_precision(record['model'])}"]
    pairs = {name: found for name, found in sets.items() if found["protocol"] == "pairs"}
    templates = {name: found for name, found in sets.items() if name not in pairs}
    if pairs:
        parts += ["## Pairs", _accuracy_table(pairs), _tar_table(pairs)]
    if templates:
        parts += ["## Templates, 1:1", _tar_table(templates)]
    for name, found in templates.items():
        if found["identification"]:
            parts += [f"## {name}, 1:N", _identification_table(found["identification"])]
    remarks = [f"- {name}: {remark}" for name, found in sets.items() for remark in found["remarks"]]
    return "\n\n".join([*parts, _NOTE, *(["\n".join(remarks)] if remarks else [])]) + "\n"


def _accuracy_table(sets: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [
            name,
            f"{found['num_pairs']:,}",
            f"{_percent(found['accuracy'])} ± {_percent(found['accuracy_standard_error'])}"
            + _interval(found["accuracy_interval"]),
            f"{found['auc']:.4f}",
            _percent(found["eer"]) + _interval(found.get("eer_interval")),
            _switches(found),
        ]
        for name, found in sets.items()
    ]
    return _table(["set", "pairs", "accuracy ± standard error, folds", "AUC", "EER", "switches"], rows)


def _tar_table(sets: Mapping[str, Mapping[str, Any]]) -> str:
    fars = sorted({point["far"] for found in sets.values() for point in found["tar"]})
    rows = []
    for name, found in sets.items():
        points = {(point["far"], point["rule"]): point for point in found["tar"]}
        for rule in FAR_RULES:
            cells = [_percent(points[far, rule]["tar"]) + _interval(points[far, rule]["interval"]) for far in fars]
            rows.append([name, _RULE_NAMES[rule], *cells, _switches(found)])
    return _table(["set", "rule", *(f"FAR {far:.0e}".replace("e-0", "e-") for far in fars), "switches"], rows)


def _identification_table(galleries: Mapping[str, Mapping[str, float]]) -> str:
    columns = [name for name in next(iter(galleries.values())) if not name.endswith(("/low", "/high"))]
    rows = [
        [name, *(_percent(rates.get(column)) + _interval(_ends(rates, column)) for column in columns)]
        for name, rates in galleries.items()
    ]
    return _table(["gallery", *columns], rows)


def _model(model: Mapping[str, Any]) -> str:
    if "features" in model:
        return f"stored features {model['features']} (SHA-256 {model['sha256'][:12]})"
    at = f" at {model['revision'][:12]}" if model["revision"] else ""
    return f"{model['name']}{at} ({model['backbone']}, weights {model['weights_sha256'][:12]})"


def _precision(model: Mapping[str, Any]) -> str:
    # What everybody expects need not be said.
    return "" if model.get("precision", "float32") == "float32" else f", in {model['precision']}"


def _switches(found: Mapping[str, Any]) -> str:
    names = {"flip": "flip", "norm": "norm", "detector_score": "detector score"}
    on = [name for key, name in names.items() if found.get(key)]
    return ", ".join(on) or "none"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f" [{_percent(ends[0])}, {_percent(ends[1])}]"


def _ends(rates: Mapping[str, float], name: str) -> list[float] | None:
    return [rates[f"{name}/low"], rates[f"{name}/high"]] if f"{name}/low" in rates else None


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    lines = [[text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in (headings, *rows)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
