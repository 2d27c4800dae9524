"""Requests and answers, apart from sockets."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class LoggedRequest:
    """A request and the status of its answer, which is `None` where the connection was cut."""

    method: str
    path: str
    user: str | None
    status: int | None = None


@dataclass
class Request:
    """What a route gets; `args` are the parts of the path, decoded."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    pieces: Iterator[bytes]
    args: dict[str, str | None] = field(default_factory=dict)
    user: str | None = None
    role: str | None = None

    def body(self) -> bytes:
        return b"".join(self.pieces)

    def json(self) -> dict:
        return json.loads(self.body() or b"{}")

    def flag(self, name: str) -> bool:
        return self.query.get(name, ["false"])[0].lower() in ("1", "true")


@dataclass
class Response:
    """An answer: JSON, or a part of a file."""

    json: object = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    file: Path | None = None
    start: int = 0
    length: int = 0
