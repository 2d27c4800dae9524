"""Branches, tags and history."""

from .access import visible, writable
from .errors import HubError, revision_not_found
from .http_types import Request, Response


def history(hub, request: Request) -> Response:
    commits = visible(hub, request).history(request.args["revision"])
    return Response(
        [
            {
                "id": commit.id,
                "title": commit.title,
                "message": commit.message,
                "authors": [{"user": commit.author}],
                "date": commit.date,
            }
            for commit in commits
        ],
        headers={"X-Total-Count": str(len(commits))},
    )


def all_references(hub, request: Request) -> Response:
    refs = visible(hub, request).refs

    def below(prefix: str) -> list[dict]:
        return [
            {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": commit}
            for ref, commit in refs.items()
            if ref.startswith(prefix)
        ]

    answer = {"branches": below("refs/heads/"), "tags": below("refs/tags/"), "converts": []}
    if request.flag("include_prs"):
        answer["pullRequests"] = below("refs/pr/")
    return Response(answer)


def create_branch(hub, request: Request) -> Response:
    start = request.json().get("startingPoint") or "main"
    return _create(hub, request, f"refs/heads/{request.args['name']}", start)


def create_tag(hub, request: Request) -> Response:
    return _create(hub, request, f"refs/tags/{request.json()['tag']}", request.args["revision"])


def _create(hub, request: Request, ref: str, start: str) -> Response:
    with hub.store.edit(writable(hub, request)) as repo:
        if ref in repo.refs:
            raise HubError(409, f"{ref} exists already")
        repo.refs[ref] = repo.commit(start).id
    return Response({})


def delete_branch(hub, request: Request) -> Response:
    if request.args["name"] == "main":
        raise HubError(403, "the branch main cannot be deleted")
    return _delete(hub, request, f"refs/heads/{request.args['name']}")


def delete_tag(hub, request: Request) -> Response:
    return _delete(hub, request, f"refs/tags/{request.args['name']}")


def _delete(hub, request: Request, ref: str) -> Response:
    with hub.store.edit(writable(hub, request)) as repo:
        if repo.refs.pop(ref, None) is None:
            raise revision_not_found(request.args["name"])
    return Response({})
