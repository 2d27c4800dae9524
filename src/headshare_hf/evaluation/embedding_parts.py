"""Embeddings of a large set in parts on disk, so that an extraction that was cut goes on where it was."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file


KEY_FILE = "key.json"


class EmbeddingParts:
    """
    A folder with consecutive rows of a matrix in files of equal length, and with the key that says of what they are.

    A file appears under its name when it is whole, so that a process which is killed leaves only whole parts.

    Args:
        folder (`str` or `Path`): Where to; it is made where needed.
        key (`Mapping[str, Any]`): Everything that the rows depend on, as JSON has it.
        num_rows (`int`): Rows of the whole matrix.
        part_rows (`int`): Rows of a part; the last one may have fewer.

    Raises:
        ValueError: The folder holds rows of another key, or of none; what differs is named.
    """

    def __init__(self, folder: str | Path, key: Mapping[str, Any], num_rows: int, part_rows: int) -> None:
        self._folder = Path(folder)
        self._parts = part_ranges(num_rows, part_rows)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._check_key({**key, "rows_per_file": part_rows})

    def missing(self) -> list[range]:
        """The parts that are not there, in order."""
        return [part for part in self._parts if not self._file(part).is_file()]

    def write(self, part: range, rows: np.ndarray) -> None:
        """
        Writes one part, whole or not at all.

        Args:
            part (`range`): Which rows of the matrix.
            rows (`np.ndarray` of shape `(len(part), width)`): These rows.
        """
        partial = self._file(part).with_suffix(".partial")
        save_file({"embeddings": np.ascontiguousarray(rows)}, partial)
        os.replace(partial, self._file(part))

    def read(self, part: range) -> np.ndarray:
        """
        Args:
            part (`range`): Which rows of the matrix.

        Returns:
            `np.ndarray` of `float32` and shape `(len(part), width)`.

        Raises:
            ValueError: The file is damaged.
        """
        path = self._file(part)
        try:
            rows = load_file(path).get("embeddings")
        except SafetensorError as error:
            raise ValueError(
                f"{path} cannot be read ({error}); delete this file, and its rows are made anew"
            ) from error
        if rows is None or rows.dtype != np.float32 or rows.ndim != 2 or len(rows) != len(part):
            raise ValueError(
                f"{path} has no {len(part)} rows of float32; delete this file, and its rows are made anew"
            )
        return rows

    def _file(self, part: range) -> Path:
        return self._folder / f"rows-{part.start:010d}.safetensors"

    def _check_key(self, key: Mapping[str, Any]) -> None:
        path, own = self._folder / KEY_FILE, json.loads(json.dumps(key))
        if path.is_file():
            differences = _differences(_read_key(path), own)
            if differences:
                raise ValueError(
                    f"{self._folder} holds embeddings of something else: {'; '.join(differences)}. Give another folder, "
                    "or delete this one"
                )
            return
        if any(self._folder.glob("rows-*.safetensors")):
            raise ValueError(f"{self._folder} has embeddings but no {KEY_FILE} that says of what; give another folder")
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(own, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(partial, path)


def part_ranges(num_rows: int, part_rows: int) -> list[range]:
    """Consecutive ranges of `part_rows` rows, of which the last may be shorter."""
    return [range(start, min(start + part_rows, num_rows)) for start in range(0, num_rows, part_rows)]


def _read_key(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is damaged ({error}); delete the folder, and its embeddings are made anew"
        ) from error


def _differences(stored: Any, own: Any, name: str = "") -> list[str]:
    """What differs between two trees of JSON, leaf by leaf."""
    if isinstance(stored, dict) and isinstance(own, dict):
        prefix = f"{name}." if name else ""
        fields = sorted(stored.keys() | own.keys())
        return [
            text for field in fields for text in _differences(stored.get(field), own.get(field), f"{prefix}{field}")
        ]
    return [] if stored == own else [f"{name} is {stored!r} there and {own!r} now"]
