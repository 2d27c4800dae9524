"""The folder: repositories as JSON files, contents as objects named by their SHA-256."""

import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from .errors import HubError, repo_not_found
from .repo import Repo, split_id


class Store:
    """Reads and writes everything that outlives the server.

    A file is written under a temporary name and renamed, so that a request that is cut leaves what was there.

    Args:
        folder: Created where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.xet = folder / "xet"
        self.lock = threading.RLock()
        self._create_folders()

    def _create_folders(self) -> None:
        for name in ("repos", "objects", "xet", "temporary"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        with self.lock:
            for name in ("repos", "objects", "xet", "temporary"):
                shutil.rmtree(self.folder / name)
            self._create_folders()

    def _repo_path(self, type: str, repo_id: str, user: str | None) -> Path:
        namespace, name = split_id(repo_id, user)
        return self.folder / "repos" / f"{type}s" / namespace / f"{name}.json"

    def exists(self, type: str, repo_id: str) -> bool:
        return self._repo_path(type, repo_id, None).is_file()

    def load(self, type: str, repo_id: str, user: str | None) -> Repo:
        """Raises the error that `user` is shown if there is no such repository."""
        path = self._repo_path(type, repo_id, user)
        with self.lock:
            if not path.is_file():
                raise repo_not_found(user)
            return Repo.from_dict(json.loads(path.read_text(encoding="utf-8")))

    def save(self, repo: Repo) -> None:
        path = self._repo_path(repo.type, repo.id, None)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.write_file(path, json.dumps(asdict(repo), indent=1).encode())

    def write_file(self, path: Path, content: bytes) -> None:
        """The whole of it or nothing."""
        handle, name = tempfile.mkstemp(dir=self.folder / "temporary")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)

    @contextmanager
    def edit(self, repo: Repo) -> Iterator[Repo]:
        """The newest state of a repository, saved at the end; nobody else edits anything in between."""
        with self.lock:
            newest = self.load(repo.type, repo.id, None)
            yield newest
            self.save(newest)

    def delete(self, repo: Repo) -> None:
        """The objects stay: other repositories may have the same contents."""
        self._repo_path(repo.type, repo.id, None).unlink()

    def repos(self, type: str) -> list[Repo]:
        """Newest first."""
        files = sorted((self.folder / "repos" / f"{type}s").glob("*/*.json"))
        repos = [self.load(type, f"{file.parent.name}/{file.stem}", None) for file in files]
        return sorted(repos, key=lambda repo: repo.created, reverse=True)

    def object(self, sha256: str) -> Path:
        return self.folder / "objects" / sha256

    def add_object(self, content: bytes) -> None:
        sha256 = hashlib.sha256(content).hexdigest()
        with self.writer(sha256) as write:
            write(content)

    @contextmanager
    def writer(self, sha256: str) -> Iterator[Callable[[bytes], None]]:
        """A function that takes the content piece by piece; the object exists only once all of it was right."""
        digest = hashlib.sha256()
        handle, name = tempfile.mkstemp(dir=self.folder / "temporary")
        try:
            with os.fdopen(handle, "wb") as file:

                def write(piece: bytes) -> None:
                    digest.update(piece)
                    file.write(piece)

                yield write
            if digest.hexdigest() != sha256:
                raise HubError(400, f"the content has the SHA-256 {digest.hexdigest()}, not {sha256}")
            os.replace(name, self.object(sha256))
        except BaseException:
            os.unlink(name)
            raise
