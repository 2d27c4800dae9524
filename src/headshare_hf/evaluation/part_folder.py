"""Folders that hold rows of a set in files of equal length, so that what was cut goes on where it was."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any


KEY_FILE = "key.json"


class PartFolder:
    """
    Consecutive rows in files of equal length, and the key that says of what they are.

    A file appears under its name when it is whole, so that a process which is killed leaves only whole parts.

    Args:
        folder (`str` or `Path`): Where to; it is made where needed.
        key (`Mapping[str, Any]`): Everything that the rows depend on, as JSON has it.
        num_rows (`int`): Rows in all.
        part_rows (`int`): Rows of a part; the last one may have fewer.
        content (`str`): What the rows are, for messages.

    Raises:
        ValueError: The folder holds rows of another key, or of none; what differs is named.
    """

    def __init__(
        self, folder: str | Path, key: Mapping[str, Any], num_rows: int, part_rows: int, content: str
    ) -> None:
        self.folder = Path(folder)
        self.parts = part_ranges(num_rows, part_rows)
        self._content = content
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_key({**key, "rows_per_file": part_rows})

    def missing(self) -> list[range]:
        """The parts that are not there, in order."""
        return [part for part in self.parts if not self.file(part).is_file()]

    def file(self, part: range) -> Path:
        """Where a part is, or would be."""
        return self.folder / f"rows-{part.start:010d}.safetensors"

    def _check_key(self, key: Mapping[str, Any]) -> None:
        path, own = self.folder / KEY_FILE, json.loads(json.dumps(key))
        if path.is_file():
            differences = key_differences(read_key(path), own)
            if differences:
                raise ValueError(
                    f"{self.folder} holds {self._content} of something else: {'; '.join(differences)}. Give another "
                    "folder, or delete this one"
                )
            return
        if any(self.folder.glob("rows-*.safetensors")):
            raise ValueError(
                f"{self.folder} has {self._content} but no {KEY_FILE} that says of what; give another folder"
            )
        # A name of its own: runs that start together claim the folder together.
        partial = path.with_suffix(f".{uuid.uuid4().hex}.partial")
        partial.write_text(json.dumps(own, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(partial, path)


def part_ranges(num_rows: int, part_rows: int) -> list[range]:
    """Consecutive ranges of `part_rows` rows, of which the last may be shorter."""
    return [range(start, min(start + part_rows, num_rows)) for start in range(0, num_rows, part_rows)]


def read_key(path: Path) -> dict[str, Any]:
    """
    The content of a key file.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete its folder, and what was in it is made anew") from error


def key_differences(stored: Any, own: Any, name: str = "") -> list[str]:
    """What differs between two trees of JSON, leaf by leaf."""
    if isinstance(stored, dict) and isinstance(own, dict):
        prefix = f"{name}." if name else ""
        fields = sorted(stored.keys() | own.keys())
        return [
            text for field in fields for text in key_differences(stored.get(field), own.get(field), f"{prefix}{field}")
        ]
    return [] if stored == own else [f"{name} is {stored!r} there and {own!r} now"]
