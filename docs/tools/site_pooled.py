"""All stored comparisons together: one method against another on every set and seed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headshare_hf.evaluation import PairedDifference, compare_paired
from headshare_hf.trainer.comparison_teachers import rival_rows
from headshare_hf.trainer.comparison_values import difference_columns, markdown, values_of


RESULTS = Path(__file__).resolve().parents[1] / "results"
# The stored comparisons, by what they are called in tables.
SETS = {
    "Omniglot": "compare_omniglot",
    "Tiny ImageNet": "compare_tiny_imagenet_100",
    "CIFAR-10": "compare_cifar10",
    "Grocery Store": "compare_grocery_store",
}
# More seeds than anybody runs, so that a pair of set and seed has a number of its own.
_SEEDS = 1_000_000


def pooled(baseline: str, folder: Path = RESULTS) -> str:
    """
    The table of differences from `baseline` on every set, and over all pairs of set and seed together.

    Args:
        baseline (`str`): A row that the sets have.
        folder (`Path`): Where the stored comparisons are.
    """
    sets = {title: _accuracies(folder / f"{name}.json") for title, name in SETS.items()}
    known = dict.fromkeys(row for found in sets.values() for row in found)
    rows = [row for row in known if sum(row in found for found in sets.values()) > 1]
    together = compare_paired(_together(list(sets.values()), rows), baseline)
    columns = {"method": {row: row for row in together}}
    for title, found in sets.items():
        columns[title] = {row: _points(difference) for row, difference in compare_paired(found, baseline).items()}
    columns |= {"pairs": {row: str(len(found.seeds)) for row, found in together.items()}}
    columns |= difference_columns(baseline, together)
    return markdown(columns, list(together))


def _accuracies(path: Path) -> dict[str, dict[int, float]]:
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values_of(rival_rows(content))


def _together(sets: Sequence[Mapping[str, Mapping[int, float]]], rows: Sequence[str]) -> dict[str, dict[int, float]]:
    return {
        row: {
            number * _SEEDS + seed: value
            for number, found in enumerate(sets)
            for seed, value in found.get(row, {}).items()
        }
        for row in rows
    }


def _points(found: PairedDifference) -> str:
    return "" if found.mean is None else f"{100 * found.mean:+.2f}"
