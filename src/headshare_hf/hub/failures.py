"""How scripts end where a model cannot be had, or the Hub refuses: with one line that says why."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx


_REMEDIES = {
    401: "log in with `hf auth login`, or set HF_TOKEN",
    403: "publish to a namespace of yours, with a token that may write there",
    412: "somebody else made a commit meanwhile; repeat the command",
}


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """
    Ends a script with one line in the place of a traceback, where something is wrong with what it was told or with the
    Hub. Errors of the program itself come through.

    Raises:
        SystemExit: With that line.
    """
    try:
        yield
    except (ValueError, OSError, ImportError, httpx.HTTPError) as error:
        raise SystemExit(_describe(error)) from error
    except RuntimeError as error:
        # huggingface_hub's own, of an upload that was cut.
        if not isinstance(error.__cause__, httpx.HTTPError):
            raise
        raise SystemExit(_line(f"{error} ({error.__cause__}); the same command goes on with it")) from error


def _describe(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        answer, remedy = error.response, _REMEDIES.get(error.response.status_code)
        # A proxy may answer too, and says nothing that the Hub would.
        message = error.server_message or str(error)
        told = f"the Hub answered {answer.status_code} {answer.reason_phrase}: {message}"
        return _line(f"{told}; {remedy}" if remedy else told)
    if isinstance(error, httpx.HTTPError):
        return _line(f"the connection to the Hub was lost, or never made ({error}); repeat the command")
    return _line(str(error))


def _line(text: str) -> str:
    return " ".join(text.split())
