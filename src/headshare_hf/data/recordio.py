"""
Records of bytes in one big file, with an index: the RecordIO of dmlc-core (`include/dmlc/recordio.h`) and mxnet.

A record is one or several parts, each of them a magic number, a word with 3 bits of kind and 29 bits of length, and
data padded to 4 bytes. Where the magic number occurs in the data, at a multiple of 4 bytes, it is left out and the
record is cut in two there, so that a reader can find the next record from anywhere.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from .decoding import CorruptImageError
from .record_index import REBUILD, read_index, write_atomically


MAGIC = struct.pack("<I", 0xCED7230A)

_LENGTH_BITS = 29
_MAX_LENGTH = (1 << _LENGTH_BITS) - 1
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_PART = struct.Struct("<4sI")
# A face of 112 pixels takes some 10 kB: one read for nearly every record, where reading its length first makes two.
_GUESS = 16384


class RecordError(CorruptImageError):
    """A record that cannot be read. The message names its number and file."""


def encode_record(payload: bytes) -> bytes:
    """
    The bytes of a record.

    Args:
        payload (`bytes`): What it holds.

    Raises:
        ValueError: It is 512 MiB or longer.
    """
    if len(payload) > _MAX_LENGTH:
        raise ValueError(f"a record of {len(payload)} bytes does not fit into RecordIO, which ends at {_MAX_LENGTH}")
    cuts = list(_aligned_magic(payload))
    starts, ends = [0, *(cut + 4 for cut in cuts)], [*cuts, len(payload)]
    kinds = [_WHOLE] if not cuts else [_FIRST, *[_MIDDLE] * (len(cuts) - 1), _LAST]
    parts = []
    for kind, start, end in zip(kinds, starts, ends, strict=True):
        parts += [_PART.pack(MAGIC, kind << _LENGTH_BITS | end - start), payload[start:end]]
    return b"".join([*parts, bytes(-len(payload) % 4)])


def _aligned_magic(payload: bytes) -> Iterator[int]:
    position = payload.find(MAGIC)
    while position >= 0:
        if position % 4 == 0:
            yield position
        position = payload.find(MAGIC, position + 1)


class RecordFile:
    """
    Reads the records of one file in any order, from any number of processes.

    A read names its own place in the file, so that forked workers share the open file; a copy by pickle opens it
    again. Memory does not depend on the size of the records: 16 bytes are kept for each, the key and the offset.

    Args:
        path (`str` or `os.PathLike`): The `.rec` file, with its `.idx` beside it.

    Attributes:
        path (`Path`): The file.
        keys (`np.ndarray` of `int64` and shape `(num_records,)`): Number of every record, increasing.
        offsets (`np.ndarray` of `int64` and shape `(num_records,)`): Where it starts, in bytes.

    Raises:
        FileNotFoundError: One of the two files is missing.
        ValueError: A line of the index cannot be parsed, or two have the same key.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path} does not exist")
        self.keys, self.offsets = read_index(self.path.with_suffix(".idx"))
        self._file = RawRecords(self.path)

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, rows: Sequence[int] | np.ndarray | slice) -> "RecordFile":
        """The same file with these records only, and in this order."""
        part = object.__new__(RecordFile)
        part.path, part._file = self.path, self._file
        part.keys, part.offsets = self.keys[rows], self.offsets[rows]
        return part

    def read(self, row: int) -> bytes:
        """
        What a record holds.

        Args:
            row (`int`): Position in `keys`, not the key.

        Raises:
            RecordError: There is no whole record where the index points to.
        """
        return self._file.read(int(self.offsets[row]), int(self.keys[row]))[0]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.size

    def end(self, row: int) -> int:
        """
        Where the record after this one starts.

        Raises:
            RecordError: There is no whole record where the index points to.
        """
        return self._file.skip(int(self.offsets[row]), int(self.keys[row]))

    def heads(self, rows: range, size: int) -> np.ndarray:
        """
        The first bytes of records, for all of them without what follows; zeros where the file ends.

        Args:
            rows (`range`): Positions in `keys`.
            size (`int`): How many bytes, with the 8 that come before the data.

        Returns:
            `np.ndarray` of `uint8` and shape `(len(rows), size)`.
        """
        offsets = self.offsets[rows.start : rows.stop]
        # Past the end a read gives nothing, which is what an offset before the beginning has to give as well.
        heads = [self._file.pread(size, offset).ljust(size, b"\0") for offset in offsets.tolist()]
        return np.frombuffer(b"".join(heads), dtype=np.uint8).reshape(-1, size)


class RawRecords:
    """
    The `.rec` file alone, read by offset.

    Args:
        path (`Path`): The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()

    def _open(self) -> None:
        self._file = open(self.path, "rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.path = path
        self._open()

    def pread(self, size: int, offset: int) -> bytes:
        """Bytes of the file, fewer where it ends."""
        return os.pread(self._file.fileno(), size, offset) if offset >= 0 else b""

    def read(self, offset: int, key: int) -> tuple[bytes, int]:
        """
        Args:
            offset (`int`): Where the record starts, in bytes.
            key (`int`): Its number, for the messages.

        Returns:
            `tuple[bytes, int]`: What the record holds, and where the next one starts.

        Raises:
            RecordError: There is no whole record.
        """
        kind, data, position = self._part(offset, key, (_WHOLE, _FIRST))
        if kind == _WHOLE:
            return data, position
        parts = [data]
        while kind != _LAST:
            kind, data, position = self._part(position, key, (_MIDDLE, _LAST))
            parts.append(data)
        return MAGIC.join(parts), position

    def skip(self, offset: int, key: int) -> int:
        """As [`read`], but only where the next record starts."""
        kind, length = self._head(self.pread(_PART.size, offset), offset, key, (_WHOLE, _FIRST))
        position = offset + _PART.size + length + -length % 4
        while kind in (_FIRST, _MIDDLE):
            kind, length = self._head(self.pread(_PART.size, position), position, key, (_MIDDLE, _LAST))
            position += _PART.size + length + -length % 4
        if position > self.size:
            raise self._truncated(key, position)
        return position

    def _part(self, offset: int, key: int, allowed: tuple[int, ...]) -> tuple[int, bytes, int]:
        found = self.pread(_GUESS, offset)
        kind, length = self._head(found, offset, key, allowed)
        start, end = _PART.size, _PART.size + length
        while len(found) < end:
            more = self.pread(end - len(found), offset + len(found))
            if not more:
                raise self._truncated(key, offset + end)
            found += more
        return kind, found[start:end], offset + end + -length % 4

    def _head(self, found: bytes, offset: int, key: int, allowed: tuple[int, ...]) -> tuple[int, int]:
        if not 0 <= offset < self.size:
            raise RecordError(
                f"record {key} of {self.path} should start at byte {offset}, but the file has {self.size} bytes; fetch "
                f"the file again if it is not complete, or rebuild its index with `{REBUILD} {self.path}`"
            )
        if len(found) < _PART.size:
            raise self._truncated(key, offset + _PART.size)
        magic, word = _PART.unpack_from(found)
        kind = word >> _LENGTH_BITS
        if magic != MAGIC or kind not in allowed:
            raise RecordError(
                f"record {key} of {self.path}: no record starts at byte {offset} (the bytes there are "
                f"{found[: _PART.size].hex()}); rebuild the index with `{REBUILD} {self.path}`, or fetch the file again"
            )
        return kind, word & _MAX_LENGTH

    def _truncated(self, key: int, end: int) -> RecordError:
        return RecordError(
            f"record {key} of {self.path} is truncated: it should end at byte {end}, but the file has {self.size} "
            "bytes; fetch the file again"
        )


def rebuild_index(path: str | os.PathLike) -> bool:
    """
    Writes the `.idx` of a `.rec` file by going through it from record to record, numbered from zero.

    Args:
        path (`str` or `os.PathLike`): The `.rec` file.

    Returns:
        `bool`: Whether there was anything to write; `False` where the index is right already.

    Raises:
        RecordError: The file is not whole; names the record.
    """
    raw, offset, lines = RawRecords(Path(path)), 0, bytearray()
    with tqdm(total=raw.size, desc="indexing", unit="B", unit_scale=True, disable=None) as progress:
        key = 0
        while offset < raw.size:
            lines += b"%d\t%d\n" % (key, offset)
            following = raw.skip(offset, key)
            progress.update(following - offset)
            key, offset = key + 1, following
    target = Path(path).with_suffix(".idx")
    if target.is_file() and target.read_bytes() == lines:
        return False
    write_atomically(target, bytes(lines))
    return True
