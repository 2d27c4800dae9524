"""The server object: storage, log, faults and a thread that answers."""

import socket
import threading
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .accounts import ALICE, ALICE_READ_ONLY, BOB
from .faults import Faults
from .http import Handler
from .http_types import LoggedRequest
from .store import Store


class _Listener(ThreadingHTTPServer):
    """Knows its open connections: clients keep them for the next request, which a thread of each waits for."""

    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        for connection in tuple(self._open):
            # The other side may have gone.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class HubServer:
    """A Hub on loopback.

    Args:
        folder: Where everything is stored; a later server with the same folder goes on with it.
        port: 0 takes a free one.
        part_size: Bytes of a part when large files shall be uploaded in parts; `None` takes them whole.

    Attributes:
        endpoint: Address, for `HF_ENDPOINT`.
        alice, alice_read_only, bob: Tokens.
        faults: Failures to come, see [`Faults`].
        log: Every request so far.
    """

    alice, alice_read_only, bob = ALICE, ALICE_READ_ONLY, BOB

    def __init__(self, folder: str | Path, port: int = 0, part_size: int | None = None) -> None:
        self.store = Store(Path(folder))
        self.part_size = part_size
        self.faults = Faults()
        self.log: list[LoggedRequest] = []
        self.uploads: dict[str, tuple[str, int]] = {}
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self._http = _Listener(("127.0.0.1", port), handler)
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"

    def serve(self) -> None:
        """Answers until it is closed."""
        self._http.serve_forever(poll_interval=0.05)

    def start(self) -> "HubServer":
        threading.Thread(target=self.serve, name="hub", daemon=True).start()
        return self

    def close(self) -> None:
        """From here on nobody is answered, on connections that are open neither."""
        self._http.shutdown()
        self._http.server_close()
        self._http.end_connections()

    def __enter__(self) -> "HubServer":
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    def clear(self) -> None:
        """Forgets all repositories, faults and the log."""
        self.store.clear()
        self.faults.clear()
        self.uploads.clear()
        self.log.clear()

    def requests(self, method: str, part: str = "") -> list[LoggedRequest]:
        """The logged requests of one method whose path contains `part`."""
        return [request for request in self.log if request.method == method and part in request.path]
