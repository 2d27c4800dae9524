"""Uploads by the Xet protocol, which clients with `hf_xet` prefer to git LFS.

A client cuts files into chunks and sends containers of chunks (xorbs), and then a shard that says which chunks make
up which file. Each file is put together at once by `hf_xet` itself, reading from this server, and stored as if it had
come by LFS; downloads are plain. Formats: the Xet protocol specification, "MDB Shard File Format", "Xorb Formation &
Storage Format" and "CAS API".
"""

import json
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .accounts import ALICE, check_writable
from .commits import writable_or_proposed
from .errors import HubError, bad_token
from .files import send_file
from .http_types import Request, Response


RECORD = 48
WITH_VERIFICATION, WITH_METADATA = 1 << 31, 1 << 30
NEVER = 2**31
PIECE = 1 << 20


@dataclass(frozen=True)
class Term:
    """Chunks `start` to `end` of a xorb, which unpack to `length` bytes of a file."""

    xorb: str
    length: int
    start: int
    end: int


def write_token(hub, request: Request) -> Response:
    """Where to send chunks; the token is the one that asked."""
    writable_or_proposed(hub, request)
    token = request.headers["authorization"].removeprefix("Bearer ")
    url = f"{hub.endpoint}/xet"
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(NEVER)}
    return Response({"casUrl": url, "accessToken": token, "exp": NEVER}, headers=headers)


def _check_token(request: Request) -> None:
    if request.user is None:
        raise bad_token()
    check_writable(request.user, request.user, request.role)


def upload_xorb(hub, request: Request) -> Response:
    _check_token(request)
    path = hub.store.xet / request.args["hash"]
    hub.store.write_file(path, request.body())
    return Response({"was_inserted": True})


def upload_shard(hub, request: Request) -> Response:
    """From here on the files exist."""
    _check_token(request)
    for file_hash, sha256, terms in _files(request.body()):
        recorded = json.dumps([vars(term) for term in terms]).encode()
        hub.store.write_file(hub.store.xet / f"{file_hash}.json", recorded)
        _assemble(hub, file_hash, sha256, sum(term.length for term in terms))
    return Response({"result": 1})


def _files(shard: bytes) -> Iterator[tuple[str, str, list[Term]]]:
    """Hash, SHA-256 and chunks of each file in a shard, which is a header and records of equal size."""
    at = RECORD
    while shard[at : at + 32] != b"\xff" * 32:
        file_hash, flags, count = struct.unpack_from("<32sII", shard, at)
        terms = [_term(shard, at + RECORD * (1 + number)) for number in range(count)]
        at += RECORD * (1 + count * (2 if flags & WITH_VERIFICATION else 1))
        if not flags & WITH_METADATA:
            raise HubError(400, "a file of the shard comes without its SHA-256")
        yield _hex(file_hash), _hex(shard[at : at + 32]), terms
        at += RECORD


def _term(shard: bytes, at: int) -> Term:
    xorb, _, length, start, end = struct.unpack_from("<32sIIII", shard, at)
    return Term(_hex(xorb), length, start, end)


def _hex(hash: bytes) -> str:
    """Hashes are written as four numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", hash))


def _assemble(hub, file_hash: str, sha256: str, size: int) -> None:
    import hf_xet

    with tempfile.TemporaryDirectory(dir=hub.store.folder / "temporary") as folder:
        target = Path(folder) / "file"
        group = hf_xet.XetSession().new_file_download_group(
            endpoint=f"{hub.endpoint}/xet", token=ALICE, token_expiry_unix_secs=NEVER
        )
        with group:
            group.start_download_file(hf_xet.XetFileInfo(file_hash, size), str(target))
        with open(target, "rb") as file, hub.store.writer(sha256) as write:
            while piece := file.read(PIECE):
                write(piece)


def download_xorb(hub, request: Request) -> Response:
    return send_file(request, hub.store.xet / request.args["hash"], {"Content-Type": "application/octet-stream"})


def reconstruction(hub, request: Request) -> Response:
    """Which bytes of which xorbs make up a part of a file."""
    recorded = hub.store.xet / f"{request.args['hash']}.json"
    if not recorded.is_file():
        raise HubError(404, "no such file")
    terms = [Term(**term) for term in json.loads(recorded.read_text())]
    wanted, skipped = _overlapping(terms, *_asked(request, sum(term.length for term in terms)))
    described = [
        {"hash": term.xorb, "unpacked_length": term.length, "range": {"start": term.start, "end": term.end}}
        for term in wanted
    ]
    fetch = {xorb: [_where(hub, xorb, wanted)] for xorb in {term.xorb for term in wanted}}
    return Response({"offset_into_first_range": skipped, "terms": described, "fetch_info": fetch})


def _overlapping(terms: list[Term], first: int, last: int) -> tuple[list[Term], int]:
    """The terms that hold these bytes of a file, and how many bytes of the first term come before them."""
    wanted, position, skipped = [], 0, 0
    for term in terms:
        if position <= last and position + term.length > first:
            skipped = skipped if wanted else first - position
            wanted.append(term)
        position += term.length
    return wanted, skipped


def _asked(request: Request, size: int) -> tuple[int, int]:
    start, end = request.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")
    if int(start) >= size:
        raise HubError(416, f"the file has {size} bytes")
    return int(start), int(end or size - 1)


def _where(hub, xorb: str, terms: list[Term]) -> dict:
    """The bytes of one xorb that hold everything these terms take from it.

    A chunk is a header of eight bytes, with the packed length in the second to fourth, and the packed bytes.
    """
    path = hub.store.xet / xorb
    if not path.is_file():
        raise HubError(400, f"the xorb {xorb} is unknown here; delete the folder xet of the client's HF_HOME")
    start = min(term.start for term in terms if term.xorb == xorb)
    end = max(term.end for term in terms if term.xorb == xorb)
    content, offsets = path.read_bytes(), [0]
    for _ in range(end):
        packed = int.from_bytes(content[offsets[-1] + 1 : offsets[-1] + 4], "little")
        offsets.append(offsets[-1] + 8 + packed)
    return {
        "range": {"start": start, "end": end},
        "url": f"{hub.endpoint}/xet/{xorb}",
        "url_range": {"start": offsets[start], "end": offsets[end] - 1},
    }
