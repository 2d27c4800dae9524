"""Commits: which files are large, and one commit out of the lines that a client sends."""

import base64
import json
from pathlib import PurePosixPath

from . import discussions
from .access import visible, writable
from .accounts import check_writable
from .errors import HubError, bad_token, entry_not_found
from .http_types import Request, Response
from .repo import Commit, Entry, Repo, large_entry, regular_entry
from .repositories import GITATTRIBUTES


LARGE = 10 * 1024 * 1024
LARGE_ENDINGS = {line.split()[0].removeprefix("*") for line in GITATTRIBUTES.decode().splitlines()}


def preupload(hub, request: Request) -> Response:
    """How each file shall be sent, and what is there already."""
    repo = writable_or_proposed(hub, request)
    present = repo.commit(request.args["revision"]).files
    answers = []
    for file in request.json()["files"]:
        mode = "lfs" if _is_large(file) else "regular"
        answer = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
        if file["path"] in present:
            answer["oid"] = present[file["path"]].oid
        answers.append(answer)
    return Response({"files": answers})


def _is_large(file: dict) -> bool:
    suffix = PurePosixPath(file["path"]).suffix
    return file["size"] > LARGE or suffix in LARGE_ENDINGS or b"\0" in base64.b64decode(file["sample"])


def writable_or_proposed(hub, request: Request) -> Repo:
    """A pull request is open to everybody who is known; the rest to the owner."""
    repo = visible(hub, request)
    revision = request.args["revision"]
    if not (request.flag("create_pr") or revision.startswith("refs/pr/")):
        return writable(hub, request)
    if request.user is None:
        raise bad_token()
    check_writable(request.user, request.user, request.role)
    return repo


def commit(hub, request: Request) -> Response:
    """Everything that was sent becomes exactly one commit, or nothing does."""
    lines = [json.loads(line) for line in request.body().splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    with hub.store.edit(writable_or_proposed(hub, request)) as repo:
        base = repo.commit(request.args["revision"])
        if header.get("parentCommit") not in (None, base.id):
            raise HubError(412, f"the revision has moved on: its commit is {base.id}, not {header['parentCommit']}")
        files = dict(base.files)
        for line in lines:
            _apply(hub, files, base, line["key"], line["value"])
        number, ref = _target(repo, request, header["summary"])
        made = repo.add_commit(ref, header["summary"], header.get("description") or "", request.user, files)
    url = repo.url(hub.endpoint)
    answer = {"success": True, "commitOid": made.id, "commitUrl": f"{url}/commit/{made.id}", "hookOutput": ""}
    if number:
        answer["pullRequestUrl"] = f"{url}/discussions/{number}"
    return Response(answer)


def _target(repo: Repo, request: Request, title: str) -> tuple[int | None, str]:
    """Number of the new pull request, if one is made, and the reference that moves."""
    revision = request.args["revision"]
    if request.flag("create_pr"):
        number = discussions.open_pull_request(repo, title, "", request.user, revision)
        return number, f"refs/pr/{number}"
    ref = repo.ref_name(revision)
    if ref is None or ref.startswith("refs/tags/"):
        raise HubError(403, f"{revision} is not a branch, commits go to a branch")
    return None, ref


def _apply(hub, files: dict[str, Entry], base: Commit, key: str, value: dict) -> None:
    if key == "file":
        content = base64.b64decode(value["content"])
        hub.store.add_object(content)
        files[_checked(value["path"])] = regular_entry(content)
    elif key == "lfsFile":
        stored = hub.store.object(value["oid"])
        if not stored.is_file():
            raise HubError(400, f"{value['path']}: its content {value['oid']} was not uploaded")
        files[_checked(value["path"])] = large_entry(value["oid"], stored.stat().st_size)
    elif key in ("deletedFile", "deletedFolder"):
        path = value["path"].rstrip("/")
        gone = [name for name in files if name == path or name.startswith(f"{path}/")]
        if not gone:
            raise entry_not_found(path, base.id)
        for name in gone:
            del files[name]
    elif key != "header":
        raise HubError(400, f"{key} is not something a commit can do here")


def _checked(path: str) -> str:
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise HubError(400, f"{path!r} is not a path inside a repository")
    return path
