"""A repository: settings, references and commits, in one JSON file that is replaced in one step."""

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .errors import HubError, repo_not_found, revision_not_found


# As git shortens the id of a commit.
SHORTEST_ID = 7
URL_PREFIX = {"model": "", "dataset": "datasets/", "space": "spaces/"}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@dataclass(frozen=True)
class Entry:
    """A file in a commit.

    Args:
        sha256: Name of its content among the objects.
        size: Bytes.
        blob: What git calls the content: SHA-1 over a header and the content, or over the pointer of a large file.
        large: Whether the file is stored as a large file (LFS).
    """

    sha256: str
    size: int
    blob: str
    large: bool

    @property
    def oid(self) -> str:
        """What clients compare with their local file: SHA-256 of large files, SHA-1 as of git of the others."""
        return self.sha256 if self.large else self.blob


def blob_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def regular_entry(content: bytes) -> Entry:
    return Entry(hashlib.sha256(content).hexdigest(), len(content), blob_sha1(content), large=False)


def large_entry(sha256: str, size: int) -> Entry:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return Entry(sha256, size, blob_sha1(pointer.encode()), large=True)


@dataclass
class Commit:
    id: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    files: dict[str, Entry]

    @classmethod
    def from_dict(cls, values: dict) -> "Commit":
        return cls(**{**values, "files": {path: Entry(**entry) for path, entry in values["files"].items()}})


@dataclass
class Repo:
    """Settings and history of one repository; `refs` maps full names, `refs/heads/main`, to commits."""

    id: str
    type: str
    private: bool
    sdk: str | None = None
    gated: str | bool = False
    granted: list[str] = field(default_factory=list)
    created: str = field(default_factory=now)
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    discussions: list[dict] = field(default_factory=list)

    @classmethod
    def from_dict(cls, values: dict) -> "Repo":
        commits = {id: Commit.from_dict(commit) for id, commit in values["commits"].items()}
        return cls(**{**values, "commits": commits})

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def url(self, endpoint: str) -> str:
        return f"{endpoint}/{URL_PREFIX[self.type]}{self.id}"

    def ref_name(self, revision: str) -> str | None:
        """The full name of a branch, tag or pull request, or `None`."""
        short = "main" if revision == "HEAD" else revision
        names = (short, f"refs/heads/{short}", f"refs/tags/{short}")
        return next((name for name in names if name in self.refs), None)

    def commit(self, revision: str) -> Commit:
        """The commit of a branch, tag, pull request, or commit id, which may be shortened."""
        name = self.ref_name(revision)
        if name is not None:
            return self.commits[self.refs[name]]
        found = [id for id in self.commits if id.startswith(revision)] if len(revision) >= SHORTEST_ID else []
        if len(found) != 1:
            raise revision_not_found(revision)
        return self.commits[found[0]]

    def history(self, revision: str) -> list[Commit]:
        """Newest first."""
        commits, id = [], self.commit(revision).id
        while id is not None:
            commits.append(self.commits[id])
            id = commits[-1].parent
        return commits

    def add_commit(self, ref: str, title: str, message: str, author: str, files: dict[str, Entry]) -> Commit:
        """Moves `ref` to a new commit, or leaves it where it is if nothing changed."""
        parent = self.commits[self.refs[ref]] if ref in self.refs else None
        if parent is not None and parent.files == files:
            return parent
        id = secrets.token_hex(20)
        self.commits[id] = Commit(id, parent and parent.id, title, message, author, now(), dict(sorted(files.items())))
        self.refs[ref] = id
        return self.commits[id]


def split_id(repo_id: str, user: str | None) -> tuple[str, str]:
    """Namespace and name; ids without a namespace exist on the public Hub only."""
    parts = repo_id.split("/")
    if len(parts) != 2 or any(part.startswith(".") for part in parts):
        raise repo_not_found(user)
    return parts[0], parts[1]


def check_name(name: str) -> None:
    """Names become file names."""
    if not name or name.startswith(".") or not all(c.isalnum() or c in "-_." for c in name):
        raise HubError(400, f"{name!r} is not a name: letters, digits, '-', '_' and '.', not first")
