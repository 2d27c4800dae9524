"""The results of a comparison in one JSON file, which later runs append to."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from . import run_folder
from .comparison import Cell, Comparison
from .comparison_identity import check_same_code, describe_comparison, without_places


# Of the result of a cell, what the file has once, or elsewhere.
_NOT_OF_A_SEED = ("row", "seed", "data", "options", "networks", "teacher_digest")


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
        self.content: dict[str, Any] = {"cells": {}}
        shown: dict[str, Any] = {"title": comparison.title, "baseline": comparison.baseline}
        if comparison.published:
            shown["published"] = comparison.published_numbers()
        # Of the first cell that is kept, where the file has none.
        self._known_images: Any = None
        self._shown = {"comparison": describe_comparison(comparison), **shown}
        self._take_in()

    def add(self, cell: Cell, result: Mapping[str, Any]) -> None:
        """
        Puts a cell into the file, at once, beside what other commands have put there since.

        Raises:
            ValueError: Its images, its code, the options of its row or the ordinary teacher are others than those in the
                file.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(self.path.name + ".lock")):
            self._take_in()
            self.check_code(result["code"])
            self.check_begun({cell.name: result.get("trained_code")}, result["code"])
            self.check_rows()
            self.check_images(f"{self.path}, row {cell.row!r}", result["data"])
            self._check_teacher(cell.name, result)
            if result.get("teacher_digest") is not None:
                self.content["teacher_digest"] = result["teacher_digest"]
            row = self.content["cells"].setdefault(cell.row, {"options": self._options(cell.row), "seeds": {}})
            row["seeds"][str(cell.seed)] = {
                name: value for name, value in result.items() if name not in _NOT_OF_A_SEED
            }
            self.content["data"] = result["data"]
            run_folder.write_json(self.path, self.content)

    def _take_in(self) -> None:
        """What the file holds by now, in which everything is that was added here."""
        if self.path.is_file():
            found = _read(self.path)
            if "comparison" in found:
                _check_same(self.path, without_places(found["comparison"]), self._shown["comparison"])
            self.content = found
        self.content.pop("published", None)
        # In this order they are shown. Rows that the file has and the comparison no longer has come last.
        order = list(dict.fromkeys([*self._rows, *self.content.get("rows", [])]))
        self.content |= {**self._shown, "rows": order}

    def check_kept(self, kept: Mapping[str, Mapping[str, Any]], code: str) -> None:
        """
        Refuses, before anything is trained, cells that could not stand beside those that are about to be.

        Args:
            kept (`Mapping[str, Mapping[str, Any]]`): What `cell.json` of finished cells holds, by their names.
            code (`str`): Version of the code that trains.

        Raises:
            ValueError: Their images, their ordinary teacher or, without somebody who vouches, their code are others.
        """
        self.check_code(code)
        self.check_rows()
        for name, result in kept.items():
            check_same_code(f"cell {name} was judged by", result["code"], code, self._accepted)
            self.check_begun({name: result.get("trained_code")}, code)
            self._known_images = self._known_images or result["data"]
            self.check_images(f"cell {name}", result["data"])
            self._check_teacher(name, result)

    def _options(self, row: str) -> Any:
        return json.loads(json.dumps(self._rows.get(row, {})))

    def check_images(self, where: str, data: Mapping[str, Any]) -> None:
        """
        Args:
            where (`str`): Whose they are, for the message.
            data (`Mapping[str, Any]`): What [`describe_images`] says of them.

        Raises:
            ValueError: Other images are known, in the file or of cells that are kept; the first difference is named.
        """
        known = self.content.get("data") or self._known_images or data
        difference = run_folder.first_difference(dict(known), dict(data))
        if difference is not None:
            raise ValueError(
                f"{where}: the results that there are belong to other images ({difference}); write to another --output and "
                "--results"
            )

    def _check_teacher(self, name: str, result: Mapping[str, Any]) -> None:
        """Every cell is of one ordinary teacher, whatever folder or machine trained it."""
        here, known = result.get("teacher_digest"), self.content.get("teacher_digest")
        if here is not None and known is not None and known != here:
            raise ValueError(
                f"{self.path} holds cells beside another teacher ({known[:12]}) than {name} has ({here[:12]}): the same options "
                "give other weights on other machines. Copy the folder of that teacher into --output before anything else "
                "is trained there, or write to another --results"
            )

    def check_code(self, code: str) -> None:
        """
        Raises:
            ValueError: The file holds results of another version of the code, for which nobody vouches.
        """
        known = {cell["code"] for row in self.content["cells"].values() for cell in row["seeds"].values()}
        for other in sorted(known):
            check_same_code(f"{self.path} holds results of", other, code, self._accepted)

    def check_begun(self, codes: Mapping[str, str | None], code: str) -> None:
        """
        Args:
            codes (`Mapping[str, str]`): Versions of the code that trained cells or began to, by their names.
            code (`str`): The version of the code that goes on with them, or judges them.

        Raises:
            ValueError: Another version, for which nobody vouches, has begun the training of a cell.
        """
        for name, other in codes.items():
            if other is not None:
                check_same_code(f"the training of cell {name} was begun by", other, code, self._accepted)

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


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}); move it away, and it is written again") from error
    if not isinstance(found, dict) or "cells" not in found:
        raise ValueError(f"{path} holds no results of a comparison; write to another file")
    return found


def _check_same(path: Path, known: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    difference = run_folder.first_difference(dict(known), dict(here))
    if difference is not None:
        raise ValueError(f"{path} holds another comparison: {difference}. Write to another file")
