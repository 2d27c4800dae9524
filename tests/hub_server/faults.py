"""Failures on request, so that tests see what a client leaves behind."""

import re
import threading
from dataclasses import dataclass


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of a method whose path `pattern` is found in.

    Args:
        after: Bytes of the body, sent or received, after which the connection is cut; `None` refuses instead.
        status: Status of the refusal.
        lose_answer: The request is carried out, and the connection is cut before the answer.
    """

    method: str
    pattern: str
    times: int
    after: int | None = None
    status: int | None = None
    lose_answer: bool = False


class CutConnection(Exception):
    """The connection is closed without another byte."""


class Faults:
    """The failures that are waiting for a request."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._lock = threading.Lock()

    def cut(self, method: str, pattern: str, after: int = 0, times: int = 1) -> None:
        """Cuts the connection after `after` bytes of the body: of the upload, or of the answer to a GET."""
        self._waiting.append(Fault(method, pattern, times, after=after))

    def refuse(self, method: str, pattern: str, status: int = 403, times: int = 1) -> None:
        """Answers with an error; one of 500 and more is what clients repeat by themselves."""
        self._waiting.append(Fault(method, pattern, times, status=status))

    def lose_answer(self, method: str, pattern: str, times: int = 1) -> None:
        """Does what was asked and cuts the connection instead of saying so."""
        self._waiting.append(Fault(method, pattern, times, lose_answer=True))

    def clear(self) -> None:
        self._waiting.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The failure for this request, if one is waiting."""
        with self._lock:
            for fault in self._waiting:
                if fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    if not fault.times:
                        self._waiting.remove(fault)
                    return fault
        return None
