"""Whether the records of an index make up the whole file: a wrong line of it often leads to a record that reads well."""

import numpy as np

from .record_index import REBUILD
from .recordio import RecordError, RecordFile


def record_ends(records: RecordFile, rows: range, lengths: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """
    Where records end, with what they are padded by.

    Args:
        records ([`RecordFile`]): The file.
        rows (`range`): Positions in `records.keys`.
        lengths (`np.ndarray` of integers and shape `(len(rows),)`): Length of the data of every record of one part.
        whole (`np.ndarray` of `bool` and shape `(len(rows),)`): Which ones these are. The others are gone through.

    Returns:
        `np.ndarray` of `int64` and shape `(len(rows),)`: Bytes from the beginning of the file.

    Raises:
        RecordError: No record starts where the index says, or the file ends in one of several parts.
    """
    padded = (lengths.astype(np.int64) + 3) // 4 * 4
    ends = records.offsets[rows.start : rows.stop] + 8 + padded
    for position in np.flatnonzero(~whole):
        ends[position] = records.end(rows[position])
    return ends


def check_extents(records: RecordFile, ends: np.ndarray) -> None:
    """
    Checks that records lie one behind the other from the first byte to the last, in whatever order.

    Args:
        records ([`RecordFile`]): With all records of the index.
        ends (`np.ndarray` of `int64` and shape `(num_records,)`): From [`record_ends`].

    Raises:
        RecordError: A record ends where no other one starts, or not where the file does. Names both records.
    """
    order = np.argsort(records.offsets, kind="stable")
    starts, keys = records.offsets[order], records.keys[order]
    expected = np.append(starts, records.size)
    found = np.concatenate([[0], ends[order]])
    wrong = np.flatnonzero(expected != found)
    if not len(wrong):
        return
    row = int(wrong[0])
    if row == len(starts) and found[row] > records.size:
        records.end(int(order[-1]))  # Raises: the file is cut.
    place = f"record {keys[row - 1]} of {records.path} ends at byte {found[row]}"
    before = place if row else f"{records.path} begins at byte 0"
    after = (
        f"the index has record {keys[row]} start at byte {starts[row]}"
        if row < len(starts)
        else f"the index has no record behind it and the file has {records.size} bytes"
    )
    raise RecordError(
        f"{before}, but {after}; rebuild the index with `{REBUILD} {records.path}`, or fetch both files again if that "
        "does not help"
    )
