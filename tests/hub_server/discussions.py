"""Pull requests, as a reference `refs/pr/N` with a title."""

from .access import visible, writable
from .accounts import check_writable
from .errors import HubError, bad_token
from .http_types import Request, Response
from .repo import Repo, now


def open_pull_request(repo: Repo, title: str, description: str, author: str, base: str) -> int:
    """Number of the new pull request, whose reference starts at `base`."""
    number = len(repo.discussions) + 1
    repo.refs[f"refs/pr/{number}"] = repo.commit(base).id
    repo.discussions.append(
        {
            "num": number,
            "title": title,
            "description": description,
            "author": author,
            "created": now(),
            "status": "open",
            "base": f"refs/heads/{base}",
        }
    )
    return number


def create(hub, request: Request) -> Response:
    fields = request.json()
    if not fields.get("pullRequest"):
        raise HubError(400, "this Hub has pull requests, not discussions")
    if request.user is None:
        raise bad_token()
    check_writable(request.user, request.user, request.role)
    with hub.store.edit(visible(hub, request)) as repo:
        number = open_pull_request(repo, fields["title"], fields.get("description", ""), request.user, "main")
    return Response({"num": number, "url": f"{repo.url(hub.endpoint)}/discussions/{number}", "pullRequest": True})


def listing(hub, request: Request) -> Response:
    repo = visible(hub, request)
    shown = [_summary(repo, discussion) for discussion in reversed(repo.discussions)]
    return Response({"discussions": shown, "count": len(shown), "start": 0, "numClosedDiscussions": 0})


def details(hub, request: Request) -> Response:
    repo = visible(hub, request)
    discussion = _find(repo, request)
    event = {
        "id": f"{discussion['num']}-1",
        "type": "comment",
        "createdAt": discussion["created"],
        "author": {"name": discussion["author"]},
        "data": {"edited": False, "hidden": False, "latest": {"raw": discussion["description"]}},
    }
    changes = {"base": discussion["base"], "mergeCommitId": discussion.get("merge")}
    return Response(
        {
            **_summary(repo, discussion),
            "events": [event],
            "changes": changes,
            "filesWithConflicts": False,
            "diff": "",
        }
    )


def merge(hub, request: Request) -> Response:
    """The files of the pull request become those of its base, in one commit."""
    with hub.store.edit(writable(hub, request)) as repo:
        discussion = _find(repo, request)
        base = discussion["base"]
        head = repo.commit(f"refs/pr/{discussion['num']}")
        if repo.refs[base] not in {commit.id for commit in repo.history(head.id)}:
            raise HubError(409, f"{base} has moved on; this Hub merges only what starts at its newest commit")
        title = f"{discussion['title']} (#{discussion['num']})"
        discussion["merge"] = repo.add_commit(base, title, "", request.user, head.files).id
        discussion["status"] = "merged"
    return Response({})


def _find(repo: Repo, request: Request) -> dict:
    number = int(request.args["number"])
    if not 1 <= number <= len(repo.discussions):
        raise HubError(404, f"{repo.id} has no pull request {number}")
    return repo.discussions[number - 1]


def _summary(repo: Repo, discussion: dict) -> dict:
    return {
        "num": discussion["num"],
        "title": discussion["title"],
        "author": {"name": discussion["author"]},
        "createdAt": discussion["created"],
        "status": discussion["status"],
        "isPullRequest": True,
        "repo": {"name": repo.id, "type": repo.type},
    }
