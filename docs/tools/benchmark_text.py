"""Sentences about what `make bench` measured, with its numbers."""

from typing import Any

from benchmark_versions import measured_with


LEAN = "trainer, lean"


def trainer_cost(stored: dict[str, Any]) -> str:
    """What the trainer costs beside a bare loop, and whether that can be told from noise."""
    found = []
    for name in ("linear", "resnet8"):
        table = stored["tables"].get(f"trainer_{name}")
        if table is None:
            continue
        rows = {row["name"]: row for row in table["rows"]}
        base, lean, control = table["rows"][0], rows[LEAN], table["rows"][-1]
        seen = lean["ratio_high"] < control["ratio_low"] or lean["ratio_low"] > control["ratio_high"]
        found.append(
            f"{table['title']}: the lean trainer takes {table['columns']['ms over the bare loop'][LEAN]:.2f} ms more than the "
            f"{1e3 * base['median_s']:.2f} ms of a bare loop, a ratio of {lean['ratio_low']:.2f} to {lean['ratio_high']:.2f} "
            f"where that of two bare loops is {control['ratio_low']:.2f} to {control['ratio_high']:.2f}, "
            f"{'which is measurable' if seen else 'which is within the noise'}"
        )
    return "; ".join(found) + "." if found else ""


def contrastive_bound(stored: dict[str, Any]) -> str:
    """What the step of CRD could reach where its loss and its negatives cost nothing."""
    contrastive, plain = (stored["tables"].get(name) for name in ("step_crd_raised", "step_resnet8x4"))
    if contrastive is None or plain is None:
        return ""
    base, networks = contrastive["rows"][0]["median_s"], {row["name"]: row["median_s"] for row in plain["rows"]}
    bounds = [f"{base / networks[name]:.1f} ({name})" for name in contrastive["targets"]]
    return (
        f"With raised thresholds a CRD whose loss and negatives cost nothing would have the ratio {' and '.join(bounds)}: what "
        "the networks take alone, by the table of TH-KD."
    )


def compiled_steps(stored: dict[str, Any]) -> str:
    """How much faster compiled steps are, once they are."""
    suffix, found = ", compiled", []
    for table in (table for key, table in stored["tables"].items() if key.startswith("step_")):
        seconds = {row["name"]: row["median_s"] for row in table["rows"]}
        for name in (name.removesuffix(suffix) for name in seconds if name.endswith(suffix)):
            found.append(f"{table['title']} ({name}): {seconds[name] / seconds[name + suffix]:.2f} times as fast")
    return f"Of a step, once it is compiled: {'; '.join(found)}." if found else ""


def slow_forms(stored: dict[str, Any]) -> str:
    """Where a form of a network takes longer than eager PyTorch does."""
    slow = [
        f"{row['name'].split(', ')[1]} for the {row['name'].split(', ')[0]} of {table['title'].removeprefix('Inference, ')}, "
        f"{row['median_s'] / eager:.2f} times as long"
        for name, table in stored["tables"].items()
        if name.startswith("inference_")
        for row in table["rows"]
        if "control" not in row["name"]
        and (eager := _eager(table, row["name"].split(", ")[0])) is not None
        and row["median_s"] > eager
    ]
    return f"Slower than eager PyTorch on this machine: {'; '.join(slow)}." if slow else ""


def chunk_counts(stored: dict[str, Any]) -> str:
    """What losses in chunks gain and save over the number of classes; nothing where that was not measured."""
    lines, tables = [], [table for name, table in stored["tables"].items() if name.startswith("class_counts_")]
    for table in tables:
        settings = f"{table['title'].partition(', ')[2]}"
        for classes in dict.fromkeys(_classes(row) for row in table["rows"]):
            rows = [row for row in table["rows"] if _classes(row) == classes]
            ratios = [row["ratio"] for row in rows]
            held, chunks = (
                [table["columns"][f"{form}, MB"].get(row["name"]) or 0.0 for row in rows]
                for form in ("logits held", "chunks")
            )
            saved = [one - other for one, other in zip(held, chunks, strict=True)]
            lines.append(
                f"| {settings} | {int(classes):,} | {min(ratios):.2f} to {max(ratios):.2f} | {min(saved):.0f} to {max(saved):.0f} |"
            )
    head = "| | classes | ratio, of four losses | MB saved |\n| --- | --- | --- | --- |\n"
    return head + "\n".join([*lines, "", measured_with(tables)]) if lines else ""


def _classes(row: dict[str, Any]) -> str:
    return str(row["name"].split()[-2])


def _eager(table: dict[str, Any], role: str) -> float | None:
    return next((row["median_s"] for row in table["rows"] if row["name"] == f"{role}, eager"), None)
