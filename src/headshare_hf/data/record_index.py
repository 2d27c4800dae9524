"""The index of a record file: lines of a number, a tab and an offset in bytes (mxnet's `MXIndexedRecordIO`)."""

import os
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv


REBUILD = "python -m headshare_hf.data.convert index"


def read_index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """
    Reads lines of a number, a tab and an offset.

    Args:
        path (`Path`): The `.idx` file.

    Returns:
        `tuple[np.ndarray, np.ndarray]` of `int64` and shape `(num_records,)`: Numbers, increasing, and offsets.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is empty, a line cannot be parsed, or two have the same number.
    """
    remedy = f"build it with `{REBUILD} {path.with_suffix('.rec')}`"
    if not path.is_file():
        raise FileNotFoundError(f"{path}, the index of {path.with_suffix('.rec').name}, does not exist; {remedy}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; {remedy}")
    read = pyarrow.csv.ReadOptions(column_names=["key", "offset"])
    parse = pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False)
    types = {"key": pyarrow.int64(), "offset": pyarrow.int64()}
    convert = pyarrow.csv.ConvertOptions(column_types=types, null_values=[])
    try:
        table = pyarrow.csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{_first_bad_line(path)}; {remedy}") from error
    keys, offsets = table["key"].to_numpy(), table["offset"].to_numpy()
    if len(keys) > 1 and not (keys[1:] > keys[:-1]).all():
        order = np.argsort(keys, kind="stable")
        keys, offsets = keys[order], offsets[order]
        repeated = keys[1:][keys[1:] == keys[:-1]]
        if len(repeated):
            raise ValueError(f"{path} has two lines for record {repeated[0]}; {remedy}")
    return keys, offsets


def _first_bad_line(path: Path) -> str:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            fields = line.rstrip(b"\r\n").split(b"\t")
            if len(fields) != 2 or not all(field.removeprefix(b"-").isdigit() for field in fields):
                return f"line {number} of {path} is {line.rstrip()!r} instead of a number, a tab and an offset"
    return f"{path} holds a number above 2**63"


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that is there as a whole or not at all, under its name."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
