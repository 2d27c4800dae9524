"""Record files built byte by byte from the format's description, without the writer that is tested with them."""

import struct
from pathlib import Path


MAGIC = b"\x0a\x23\xd7\xce"


def part(data: bytes, kind: int = 0) -> bytes:
    """One part of a record."""
    return MAGIC + struct.pack("<I", (kind << 29) + len(data)) + data + b"\0" * ((4 - len(data) % 4) % 4)


def payload(image: bytes, *labels: float, number: int = 0) -> bytes:
    """Header, labels and image."""
    if len(labels) == 1:
        return struct.pack("<IfQQ", 0, labels[0], number, 0) + image
    return struct.pack("<IfQQ", len(labels), 0, number, 0) + struct.pack(f"<{len(labels)}f", *labels) + image


def write_parts(path: Path, records: list[bytes]) -> list[int]:
    """Writes records and their index; returns where each starts."""
    offsets = [sum(map(len, records[:number])) for number in range(len(records))]
    path.write_bytes(b"".join(records))
    write_index(path, dict(enumerate(offsets)))
    return offsets


def write_index(path: Path, offsets: dict[int, int]) -> None:
    """Writes the index of a record file."""
    path.with_suffix(".idx").write_text("".join(f"{key}\t{offset}\n" for key, offset in offsets.items()))
