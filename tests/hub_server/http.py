"""The handler between the socket and the routes."""

import json
import traceback
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import parse_qs, urlsplit

from .accounts import user_and_role
from .errors import HubError
from .faults import CutConnection, Fault
from .http_types import LoggedRequest, Request, Response
from .routes import route


if TYPE_CHECKING:
    from .server import HubServer

PIECE = 1 << 20


def read_pieces(stream: BinaryIO, headers: dict[str, str], fault: Fault | None) -> Iterator[bytes]:
    """The body of a request, up to the byte where a fault cuts it."""
    left = fault.after if fault and fault.after is not None else None
    for piece in _chunks(stream) if headers.get("transfer-encoding") == "chunked" else _sized(stream, headers):
        if left is not None and len(piece) >= left:
            yield piece[:left]
            raise CutConnection
        left = None if left is None else left - len(piece)
        yield piece
    if left is not None:
        raise CutConnection


def _sized(stream: BinaryIO, headers: dict[str, str]) -> Iterator[bytes]:
    left = int(headers.get("content-length") or 0)
    while left:
        piece = stream.read(min(left, PIECE))
        if not piece:
            raise CutConnection
        left -= len(piece)
        yield piece


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while size := int(stream.readline().split(b";")[0] or b"0", 16):
        piece = stream.read(size)
        stream.readline()
        if len(piece) < size:
            raise CutConnection
        yield piece
    stream.readline()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    # Answers are written in two steps, which waits for the other side without this.
    disable_nagle_algorithm = True
    hub: "HubServer"

    def handle(self) -> None:
        # A client that goes away between two requests is nothing to report.
        with suppress(ConnectionError):
            super().handle()

    def handle_any(self) -> None:
        split = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = self.hub.faults.take(self.command, split.path)
        pieces = read_pieces(self.rfile, headers, fault if self.command != "GET" else None)
        request = Request(self.command, split.path, parse_qs(split.query), headers, pieces)
        logged = LoggedRequest(self.command, split.path, None)
        # Before the answer, so that whoever has the answer finds the request in the log.
        self.hub.log.append(logged)
        try:
            response = self._answer(request, fault)
            logged.user = request.user
            if fault and fault.lose_answer:
                raise CutConnection
            logged.status = response.status
            self._send(response, fault)
        except (CutConnection, ConnectionError, TimeoutError):
            logged.status = None
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def _answer(self, request: Request, fault: Fault | None) -> Response:
        try:
            request.user, request.role = user_and_role(request.headers.get("authorization"))
            if fault and fault.status:
                raise HubError(fault.status, "refused by the test")
            response = route(self.hub, request)
        except HubError as error:
            response = Response(error.body, error.status, error.headers)
        except (CutConnection, ConnectionError):
            raise
        except Exception:
            # A status of 500 would make clients try again for a long time.
            response = Response({"error": traceback.format_exc()}, 400)
        for _ in request.pieces:  # what the route did not read would be taken for the next request
            pass
        return response

    def _send(self, response: Response, fault: Fault | None) -> None:
        content = b"" if response.file else json.dumps(response.json).encode()
        length = response.length if response.file else len(content)
        self.send_response(response.status)
        for name, value in {"Content-Type": "application/json", **response.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.command == "GET" and fault is not None and fault.after is not None
        left = min(fault.after, length) if cut else length
        if response.file:
            self._send_file(response, left)
        else:
            self.wfile.write(content[:left])
        if cut:
            raise CutConnection

    def _send_file(self, response: Response, left: int) -> None:
        with open(response.file, "rb") as file:
            file.seek(response.start)
            while left:
                piece = file.read(min(left, PIECE))
                self.wfile.write(piece)
                left -= len(piece)

    def log_message(self, *args: object) -> None:
        """The log of the server takes the place of lines on the error stream."""
