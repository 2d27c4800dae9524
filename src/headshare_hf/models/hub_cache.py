"""What of a Hub repository is on this disk, and errors of loading that tell it."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import _CACHED_NO_EXIST, constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.file_download import repo_folder_name


CONFIG_FILE, PROCESSOR_FILE = "config.json", "preprocessor_config.json"
WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"

# What disks say, and connections never do: full, over a quota, forbidden, read-only, a file in the place of a folder.
_DISK_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EIO),
    *(errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EFBIG, errno.EMFILE, errno.ENFILE),
}


def describe_cached(repo_id: str, cache_dir: str | Path | None = None) -> str:
    """
    One line on the revisions of a model that are in the cache, for the message of an error.

    Args:
        repo_id (`str`): Of the model.
        cache_dir (`str` or `Path`, *optional*): The cache; that of huggingface_hub by default.
    """
    folder = Path(cache_dir or constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="model")
    references = sorted(path for path in folder.glob("refs/**/*") if path.is_file())
    names = {path.relative_to(folder / "refs").as_posix(): path.read_text(encoding="utf-8") for path in references}
    commits = [path.name for path in sorted(folder.glob("snapshots/*"))]
    if not commits:
        return f"Nothing of {repo_id} is in the cache {folder.parent}."
    found = [", ".join([commit, *(name for name, target in names.items() if target == commit)]) for commit in commits]
    return f"Of {repo_id}, the cache {folder.parent} holds: {'; '.join(found)}."


def local_folder(name_or_path: str | Path, options: Mapping[str, Any]) -> Path | None:
    """
    Where the files are that were last read, without asking the Hub: the folder itself, or one of the cache.

    Args:
        name_or_path (`str` or `Path`): Folder or Hub id.
        options (`Mapping[str, Any]`): `revision`, `subfolder` and `cache_dir` as `from_pretrained` takes them.

    Returns:
        `Path`, or `None` where the cache has no `config.json` of this revision.
    """
    if Path(name_or_path).is_dir():
        return Path(name_or_path, options.get("subfolder") or "")
    found = _cached(name_or_path, CONFIG_FILE, options)
    return Path(found).parent if isinstance(found, str) else None


def cached_commit(name_or_path: str | Path, options: Mapping[str, Any]) -> str | None:
    """
    The commit that `config.json` was last read from, without asking the Hub; `None` of a folder.

    Args:
        name_or_path, options: As [`local_folder`] takes them.
    """
    folder = None if Path(name_or_path).is_dir() else local_folder(name_or_path, options)
    depth = len(Path(options.get("subfolder") or "").parts)
    # .../snapshots/<commit>/<subfolder>
    return None if folder is None else [folder, *folder.parents][depth].name


def is_missing(name_or_path: str | Path, file: str, options: Mapping[str, Any]) -> bool:
    """
    Whether a folder lacks a file, or a Hub repository does as far as the Hub has once said so.

    Args:
        name_or_path, options: As [`local_folder`] takes them.
        file (`str`): Its name.
    """
    if Path(name_or_path).is_dir():
        return not Path(name_or_path, options.get("subfolder") or "", file).is_file()
    return _cached(name_or_path, file, options) is _CACHED_NO_EXIST


def _cached(repo_id: str | Path, file: str, options: Mapping[str, Any]) -> Any:
    path = "/".join(filter(None, (options.get("subfolder"), file)))
    place = {name: options.get(name) for name in ("cache_dir", "revision")}
    return try_to_load_from_cache(str(repo_id), path, **place)


@contextmanager
def explained(name_or_path: str | Path, options: Mapping[str, Any], *files: str) -> Iterator[None]:
    """
    Lets errors of loading tell that there is no such folder, and what the cache holds where the Hub was not reached.

    Args:
        name_or_path, options: As [`local_folder`] takes them.
        files (`str`): One of these is needed. transformers does not say why it has none of them: whether they do not
            exist, or were not to be had.

    Raises:
        OSError: The one that comes through, with its own cause, and more to say.
    """
    try:
        yield
    except OSError as error:
        hints = [hint for hint in _hints(str(name_or_path), options, files, error) if hint not in str(error)]
        if not hints:
            raise
        raise OSError("\n".join([str(error), *hints])) from (error.__cause__ or error)


def _hints(name: str, options: Mapping[str, Any], files: tuple[str, ...], error: OSError) -> Iterator[str]:
    if os.path.exists(name):
        return
    if _looks_like_a_folder(name):
        yield f"There is no folder {name}."
    if _was_not_reached(name, options, files, error):
        yield f"The Hub was not reached. {describe_cached(name, options.get('cache_dir'))}"


def _looks_like_a_folder(name: str) -> bool:
    """Whether it cannot be a Hub id, or would be in a folder that exists: `outputs/run` may be both."""
    parent = os.path.dirname(name)
    return name.startswith((".", "~")) or name.endswith("/") or name.count("/") > 1 or os.path.isdir(parent)


def _was_not_reached(name: str, options: Mapping[str, Any], files: tuple[str, ...], error: OSError) -> bool:
    causes = list(_causes(error))
    if any(isinstance(cause, LocalEntryNotFoundError) for cause in causes):
        return True
    # The Hub has answered, or the name or what was read is wrong, or this disk.
    if any(isinstance(cause, (HfHubHTTPError, ValueError)) or _is_of_the_disk(cause) for cause in causes):
        return False
    return all(_cached(name, file, options) is None for file in files)


def _is_of_the_disk(error: BaseException) -> bool:
    return isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and error.errno in _DISK_ERRORS)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
