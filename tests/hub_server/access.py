"""The repository that a request names, if the one who asks may do what is asked."""

from typing import TYPE_CHECKING

from .accounts import check_readable, check_visible, check_writable
from .repo import Repo


if TYPE_CHECKING:
    from .http_types import Request
    from .server import HubServer


def visible(hub: "HubServer", request: "Request") -> Repo:
    """For what is public of a gated repository."""
    repo = hub.store.load(repo_type(request), request.args["id"], request.user)
    check_visible(repo, request.user)
    return repo


def readable(hub: "HubServer", request: "Request") -> Repo:
    repo = visible(hub, request)
    check_readable(repo, request.user)
    return repo


def writable(hub: "HubServer", request: "Request") -> Repo:
    repo = visible(hub, request)
    check_writable(repo.owner, request.user, request.role)
    return repo


def repo_type(request: "Request") -> str:
    return (request.args["kind"] or "models").removesuffix("s")
