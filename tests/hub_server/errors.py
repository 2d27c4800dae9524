"""Errors as the Hub names them: clients choose their exception by the header `X-Error-Code`, not by the status."""


class HubError(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status, below 500: clients repeat requests that failed with more for a long time.
        message: Sent in the body and as `X-Error-Message`.
        code: Value of `X-Error-Code`.
        headers: Further headers.
        body: Further fields of the JSON body.
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict | None = None, body: dict | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": message, **(body or {})}
        self.headers = {"X-Error-Message": " ".join(message.split()), **(headers or {})}
        if code:
            self.headers["X-Error-Code"] = code


def bad_token() -> HubError:
    return HubError(401, "Invalid credentials in Authorization header")


def repo_not_found(user: str | None) -> HubError:
    """Also for a private repository, whose existence is nobody's business."""
    if user is None:
        return HubError(401, "Invalid username or password.", "RepoNotFound")
    return HubError(404, "Repository not found", "RepoNotFound")


def gated(user: str | None, repo_id: str) -> HubError:
    message = f"Access to {repo_id} is restricted. Ask for access to it and use a token that was granted it."
    return HubError(401 if user is None else 403, message, "GatedRepo")


def revision_not_found(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str, commit: str) -> HubError:
    """Without the commit, clients do not remember that the file does not exist."""
    return HubError(404, f"{path} does not exist", "EntryNotFound", {"X-Repo-Commit": commit})


def forbidden(message: str) -> HubError:
    return HubError(403, message)
