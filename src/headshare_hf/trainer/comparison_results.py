"""The results of a comparison in one JSON file, which later runs append to."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import run_folder
from .comparison import Cell, Comparison


# What all rows have in common. Rows may be added, and seeds; anything else makes another comparison.
_COMMON = ("student", "teacher", "training", "teacher_training", "teacher_seed", "test_split")
# Where the images lie and how fast they are read changes no result.
_PLACES = ("name", "cache_images", "image_cache")
# Folders, and what says how fast a run is or how much of it is shown.
_SPEED = ("teacher_cache", "dataloader_num_workers", "logging_steps", "logging_strategy", "disable_tqdm")


class ComparisonResults:
    """
    Args:
        path (`Path`): The JSON file; it need not exist.
        comparison ([`Comparison`]): What is compared.
        accepted_code (`Sequence[str]`, *optional*):
            Versions of the code whose results may stand beside those of another one.

    Raises:
        ValueError: The file is damaged, or holds another comparison.
    """

    def __init__(self, path: Path, comparison: Comparison, accepted_code: Sequence[str] = ()) -> None:
        self.path = path
        self._rows = comparison.methods
        self._accepted = set(accepted_code)
        self.content = _read(path) if path.is_file() else {"cells": {}}
        described = _describe(comparison)
        if "comparison" in self.content:
            _check_same(path, self.content["comparison"], described)
        # In this order they are shown. Rows that the file has and the comparison no longer has come last.
        order = list(dict.fromkeys([*comparison.methods, *self.content.get("rows", [])]))
        shown: dict[str, Any] = {"title": comparison.title, "baseline": comparison.baseline, "rows": order}
        if comparison.published:
            shown["published"] = {"source": comparison.published_source, "values": comparison.published}
        self.content |= {"comparison": described, **shown}

    def add(self, cell: Cell, result: Mapping[str, Any]) -> None:
        """
        Puts a cell into the file, at once.

        Raises:
            ValueError: Its images, its code or the options of its row are others than those in the file.
        """
        self.check_code(result["code"])
        self.check_rows()
        self._check_data(f"{self.path}, row {cell.row!r}", result["data"])
        row = self.content["cells"].setdefault(cell.row, {"options": self._options(cell.row), "seeds": {}})
        row["seeds"][str(cell.seed)] = {
            name: value for name, value in result.items() if name not in ("row", "seed", "data")
        }
        self.content["data"] = result["data"]
        run_folder.write_json(self.path, self.content)

    def _options(self, row: str) -> Any:
        return json.loads(json.dumps(self._rows.get(row, {})))

    def _check_data(self, where: str, data: Any) -> None:
        known = self.content.get("data", data)
        for name in sorted(known.keys() | data.keys()):
            if known.get(name) != data.get(name):
                raise ValueError(
                    f"{where}: the results in the file are of other images (`{name}` is {known.get(name)} there and "
                    f"{data.get(name)} here); write to another file"
                )

    def check_code(self, code: str) -> None:
        """
        Raises:
            ValueError: The file holds results of another version of the code, for which nobody vouches.
        """
        known = {cell["code"] for row in self.content["cells"].values() for cell in row["seeds"].values()}
        foreign = sorted(known - {code, *self._accepted})
        if foreign and code not in self._accepted:
            raise ValueError(
                f"{self.path} holds results of version {foreign[0]} of the code, and this is {code}. Write to another file, or "
                f"vouch with `--accept-code {foreign[0]}` that nothing between them changes a result"
            )

    def check_rows(self) -> None:
        """
        Raises:
            ValueError: A row of the file was made with other options than the row of this name has now.
        """
        for name, row in self.content["cells"].items():
            if name in self._rows and row["options"] != self._options(name):
                raise ValueError(
                    f"{self.path}: row {name!r} was made with the options {row['options']}, and they are "
                    f"{self._options(name)} now; give the row another name"
                )


def _describe(comparison: Comparison) -> dict[str, Any]:
    common = {name: getattr(comparison, name) for name in _COMMON}
    training = {name: value for name, value in comparison.training.items() if name not in _SPEED}
    data = {name: value for name, value in comparison.data.items() if name not in _PLACES}
    return json.loads(json.dumps({**common, "training": training, "data": data}))


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}); move it away, and it is written again") from error


def _check_same(path: Path, known: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    for section in sorted(known.keys() | here.keys()):
        if known.get(section) != here.get(section):
            raise ValueError(
                f"{path} holds another comparison: `{section}` is {known.get(section)} there and {here.get(section)} here. "
                "Write to another file"
            )
