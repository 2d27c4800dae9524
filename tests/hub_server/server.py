"""The server object: storage, log, faults and a thread that answers."""

import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

from .accounts import ALICE, ALICE_READ_ONLY, BOB
from .faults import Faults
from .http import Handler
from .http_types import LoggedRequest
from .store import Store


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
        self._http = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._http.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"

    def serve(self) -> None:
        """Answers until it is closed."""
        self._http.serve_forever(poll_interval=0.05)

    def start(self) -> "HubServer":
        threading.Thread(target=self.serve, name="hub", daemon=True).start()
        return self

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

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
