"""What the Hub knows about a repository from its files, and searching by it."""

import json

from . import cards
from .access import repo_type, visible
from .errors import HubError
from .http_types import Request, Response
from .repo import Commit, Entry, Repo


def repository(hub, request: Request) -> Response:
    repo = visible(hub, request)
    commit = repo.commit(request.args.get("revision") or "main")
    answer = describe(hub, repo, commit)
    if request.flag("blobs"):
        answer["siblings"] = [_sibling(path, entry) for path, entry in commit.files.items()]
    return Response(answer)


def describe(hub, repo: Repo, commit: Commit) -> dict:
    card, _ = cards.front_matter(_text(hub, commit, "README.md"))
    config = _config(hub, commit)
    answer = {
        "_id": repo.id,
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.owner,
        "sha": commit.id,
        "lastModified": commit.date,
        "createdAt": repo.created,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": cards.tags(repo.type, card, config),
        "siblings": [{"rfilename": path} for path in commit.files],
        "usedStorage": sum(entry.size for entry in commit.files.values()),
    }
    if card:
        answer["cardData"] = card
    if repo.type == "model":
        answer.update(_model_fields(card, config))
    if repo.sdk:
        answer["sdk"] = repo.sdk
    return answer


def _model_fields(card: dict, config: dict) -> dict:
    shown = ("architectures", "model_type", "auto_map")
    fields = {
        "pipeline_tag": card.get("pipeline_tag"),
        "library_name": card.get("library_name") or ("transformers" if config.get("model_type") else None),
        "model-index": card.get("model-index"),
        "config": {name: config[name] for name in shown if name in config},
    }
    return {name: value for name, value in fields.items() if value}


def _sibling(path: str, entry: Entry) -> dict:
    sibling = {"rfilename": path, "size": entry.size, "blobId": entry.blob}
    if entry.large:
        sibling["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": 134}
    return sibling


def _text(hub, commit: Commit, path: str) -> str:
    if path not in commit.files:
        return ""
    return hub.store.object(commit.files[path].sha256).read_text(encoding="utf-8")


def _config(hub, commit: Commit) -> dict:
    try:
        config = json.loads(_text(hub, commit, "config.json") or "{}")
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def search(hub, request: Request) -> Response:
    """The public repositories and one's own, by author, words of the id and tags."""
    query = request.query
    found = []
    for repo in hub.store.repos(repo_type(request)):
        if repo.private and request.user != repo.owner:
            continue
        described = describe(hub, repo, repo.commit("main"))
        tags = query.get("filter", []) + query.get("pipeline_tag", [])
        if (
            query.get("author", [repo.owner])[0] == repo.owner
            and query.get("search", [""])[0].lower() in repo.id.lower()
            and set(tags) <= set(described["tags"])
        ):
            found.append(described)
    return Response(found[: int(query.get("limit", [len(found)])[0])])


def validate_card(hub, request: Request) -> Response:
    """Clients refuse a card before the files are uploaded."""
    fields = request.json()
    card, problem = cards.front_matter(fields["content"])
    errors = [problem] if problem else cards.problems(card)
    if errors:
        messages = [{"message": message} for message in errors]
        raise HubError(400, "Invalid metadata in README.md", body={"errors": messages, "warnings": []})
    empty = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return Response({"errors": [], "warnings": empty})
