"""The text tables of the IJB protocols: millions of lines into arrays, and errors that name file and line."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv


_INTEGER = rb"-?\d+"
_PATTERNS = {
    pa.int32(): _INTEGER,
    pa.int8(): _INTEGER,
    pa.float32(): rb"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?",
    pa.string(): rb"[^ ]+",
}


def read_table(path: Path, columns: Mapping[str, pa.DataType]) -> dict[str, np.ndarray]:
    """
    Reads a table of which every line has the same fields, with one space between.

    Args:
        path (`Path`): The file.
        columns (`Mapping[str, pa.DataType]`): Name and type, one of int8, int32, float32 and string, of every field.

    Returns:
        `dict[str, np.ndarray]`: The columns, text as an array of `object`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is empty, or a line does not fit; names file and line.
    """
    _check_file(path)
    try:
        table = pa.csv.read_csv(
            path,
            pa.csv.ReadOptions(column_names=list(columns), block_size=1 << 24),
            pa.csv.ParseOptions(delimiter=" ", quote_char=False, ignore_empty_lines=False),
            pa.csv.ConvertOptions(column_types=dict(columns), null_values=[]),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(_explain(path, columns, error)) from error
    return {name: table.column(name).to_numpy() for name in columns}


def read_leading_integers(path: Path, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    """
    Reads the first two fields, which are integers, of the lines of a comma table below its line of headings. The other
    fields, names of files among them, may be of any kind.

    Args:
        path (`Path`): The file.
        first (`str`): What the first field is, for messages.
        second (`str`): What the second field is.

    Returns:
        `tuple[np.ndarray, np.ndarray]` of `int64` and shape `(num_lines,)`: Without the headings.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: There are no headings or no lines below them, or a line does not fit; names file and line.
    """
    _check_file(path)
    matches = re.compile(rb"(-?\d{1,9}),(-?\d{1,9})(,|\r?\n?$)").match
    with path.open("rb") as file:
        if matches(file.readline()):
            raise line_error(path, 0, "expected headings, which the protocol's files have in their first line")
        rows = []
        for row, line in enumerate(file, start=1):
            found = matches(line)
            if not found:
                raise line_error(path, row, f"{_shown(line)} does not start with the numbers {first},{second}")
            rows.append((int(found[1]), int(found[2])))
    if not rows:
        raise ValueError(f"{path} has no lines below its headings; copy it again")
    numbers = np.array(rows, dtype=np.int64)
    return numbers[:, 0], numbers[:, 1]


def line_error(path: Path, row: int, problem: str) -> ValueError:
    """
    An error about one line.

    Args:
        path (`Path`): The file.
        row (`int`): Number of the line, from zero.
        problem (`str`): What is wrong, and what to do.
    """
    return ValueError(f"{path}, line {row + 1}: {problem}")


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; it belongs to the protocol's `meta` folder")


def _explain(path: Path, columns: Mapping[str, pa.DataType], error: pa.ArrowInvalid) -> str:
    """Finds the line that the fast parser stumbled over, which it does not number when it reads with several threads."""
    matches = re.compile(b" ".join(_PATTERNS[kind] for kind in columns.values())).fullmatch
    number = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not matches(line.rstrip(b"\r\n")):
                return f"{path}, line {number}: {_shown(line)} is not of the form {' '.join(columns)!r}"
    problem = f"cannot be read: {error}" if number else "is empty"
    return f"{path} {problem}; expected lines of the form {' '.join(columns)!r}"


def _shown(line: bytes) -> str:
    return repr(line.rstrip(b"\r\n").decode(errors="replace")[:120])
