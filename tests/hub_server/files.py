"""Listing and downloading files."""

import json
import re
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs

from .access import readable, visible
from .errors import HubError, entry_not_found
from .http_types import Request, Response
from .repo import Commit, Entry, Repo, blob_sha1


def resolve(hub, request: Request) -> Response:
    """A file of a revision."""
    repo = readable(hub, request)
    commit = repo.commit(request.args["revision"])
    entry = commit.files.get(request.args["path"])
    if entry is None:
        raise entry_not_found(request.args["path"], commit.id)
    headers = {
        "Content-Type": "application/octet-stream",
        "ETag": f'"{entry.oid}"',
        "Accept-Ranges": "bytes",
        "X-Repo-Commit": commit.id,
        "X-Linked-Size": str(entry.size),
        "X-Linked-Etag": f'"{entry.oid}"',
    }
    return send_file(request, hub.store.object(entry.sha256), headers)


def send_file(request: Request, path: Path, headers: dict[str, str]) -> Response:
    """A file of this machine, or the part of it that a range asks for."""
    size = path.stat().st_size
    start, length, status = _range(request.headers.get("range"), size)
    if status == 206:
        headers = {**headers, "Content-Range": f"bytes {start}-{start + length - 1}/{size}"}
    return Response(None, status, headers, path, start, length)


def _range(header: str | None, size: int) -> tuple[int, int, int]:
    """First byte, number of bytes and status."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if not match or match.group() == "bytes=-":
        return 0, size, 200
    first, last = match.groups()
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    if start >= end:
        raise HubError(416, f"{header} is outside of {size} bytes", headers={"Content-Range": f"bytes */{size}"})
    return start, end - start, 206


def tree(hub, request: Request) -> Response:
    """The entries of a folder, or of all folders below it."""
    repo = visible(hub, request)
    commit = repo.commit(request.args["revision"])
    folder = (request.args.get("path") or "").strip("/")
    prefix = f"{folder}/" if folder else ""
    below = {path: entry for path, entry in commit.files.items() if path.startswith(prefix)}
    if folder and not below:
        raise entry_not_found(folder, commit.id)
    names = _folders(below) | set(below)
    if not request.flag("recursive"):
        names = {name for name in names if "/" not in name.removeprefix(prefix)}
    inside = sorted(name for name in names if name.startswith(prefix))
    return Response([_describe(repo, commit, name, request.flag("expand")) for name in inside])


def paths_info(hub, request: Request) -> Response:
    """The named files and folders, without those that do not exist."""
    repo = visible(hub, request)
    commit = repo.commit(request.args["revision"])
    body = request.body()
    if "json" in request.headers.get("content-type", ""):
        fields = json.loads(body)
        paths, expand = fields["paths"], bool(fields.get("expand"))
    else:
        form = parse_qs(body.decode())
        paths, expand = form.get("paths", []), form.get("expand", ["false"])[0].lower() == "true"
    known = _folders(commit.files) | set(commit.files)
    return Response([_describe(repo, commit, path, expand) for path in paths if path in known])


def _folders(files: dict[str, Entry]) -> set[str]:
    return {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}


def _describe(repo: Repo, commit: Commit, path: str, expand: bool) -> dict:
    entry = commit.files.get(path)
    if entry is None:
        described = {"type": "directory", "path": path, "oid": blob_sha1(path.encode()), "size": 0}
    else:
        described = {"type": "file", "path": path, "oid": entry.blob, "size": entry.size}
    if entry is not None and entry.large:
        described["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": 134}
    if expand:
        last = _last_change(repo, commit, path)
        described["lastCommit"] = {"id": last.id, "title": last.title, "date": last.date}
    return described


def _last_change(repo: Repo, commit: Commit, path: str) -> Commit:
    """The newest commit that is not like its parent in this file or folder."""

    def content(at: Commit) -> list:
        return [pair for pair in at.files.items() if pair[0] == path or pair[0].startswith(f"{path}/")]

    while commit.parent and content(commit) == content(repo.commits[commit.parent]):
        commit = repo.commits[commit.parent]
    return commit
