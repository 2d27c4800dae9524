"""What went wrong, in words for the visitors of the demo."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from headshare_hf.hub import describe_cached


logger = logging.getLogger(__name__)

_ACCESS = "Whoever runs this demo can start it with an `HF_TOKEN` that has access."


class DemoError(Exception):
    """What is shown to the visitor."""


@contextmanager
def in_words(name: str) -> Iterator[None]:
    """Errors of loading a model as a [`DemoError`]: models of strangers fail in every way. The log has them whole."""
    try:
        yield
    except DemoError:
        raise
    except Exception as error:
        logger.warning("%s cannot be loaded", name, exc_info=True)
        raise DemoError(describe(error, name)) from error


@contextmanager
def images_in_words(images: str, action: str) -> Iterator[None]:
    """
    Errors of a model that images meet as a [`DemoError`]: what a network takes of sizes and channels is up to it and to its
    image processor. The log has them whole.

    Args:
        images (`str`): Names of the files.
        action (`str`): What cannot be done with them.
    """
    try:
        yield
    except Exception as error:
        logger.warning("%s cannot be %s", images, action, exc_info=True)
        raise DemoError(f"{images} cannot be {action}: {_first_line(error)}") from error


def describe(error: BaseException, name: str) -> str:
    """
    An error of loading a model in words.

    Args:
        error (`BaseException`): Of transformers or huggingface_hub; what caused it is looked at too.
        name (`str`): Of the model.
    """
    chain = [error]
    # transformers names some causes and only covers others.
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    path = name.partition("@")[0]
    for cause in chain:
        # Gated comes first, because the Hub's clients count it among the repositories that are not found.
        if isinstance(cause, GatedRepoError):
            return f"{name} is gated: the Hub gives it only to accounts that were let in. {_hub_says(cause)} {_ACCESS}"
        if isinstance(cause, RepositoryNotFoundError):
            return f"The Hub has no model {name}, or it is private. {_hub_says(cause)} {_ACCESS}"
        if isinstance(cause, RevisionNotFoundError):
            return f"{path} has no such revision as {name.partition('@')[2]!r}. {_hub_says(cause)}"
        if isinstance(cause, LocalEntryNotFoundError) or _is_cut_connection(cause):
            return f"The Hub cannot be reached, and {name} is not on this machine. {describe_cached(path)}"
        if isinstance(cause, HFValidationError):
            return f"{name!r} is no Hub id; one reads `namespace/name`."
    return f"{name} cannot be loaded: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    """What follows it is advice to programmers."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _is_cut_connection(error: BaseException) -> bool:
    """Whether it is a `TransportError` of huggingface_hub's HTTP client, which is `httpx` or `httpx2`."""
    bases = type(error).__mro__
    return any(base.__name__ == "TransportError" and base.__module__.startswith("httpx") for base in bases)


def _hub_says(error: HfHubHTTPError) -> str:
    return f"The Hub says: “{error.server_message}”" if error.server_message else ""
