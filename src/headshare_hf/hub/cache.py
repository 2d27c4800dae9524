"""Where a model is: its name and revision, and what of its repository is on this disk."""

from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name


def split_revision(name_or_path: str, revision: str | None = None) -> tuple[str, str | None]:
    """
    Name and revision of `id@revision`, of an id and a revision, or of a folder.

    Args:
        name_or_path (`str`): Folder, Hub id, or Hub id with a branch, tag or commit behind `@`.
        revision (`str`, *optional*): The branch, tag or commit, where it is not behind `@`.

    Raises:
        ValueError: A folder has a revision, or an id two, or an empty one.
    """
    if Path(name_or_path).exists():
        if revision is not None:
            raise ValueError(f"`revision` {revision!r} has no effect on the folder {name_or_path}; leave it out")
        return name_or_path, None
    name, at, inline = name_or_path.partition("@")
    if at and (revision is not None or not inline):
        raise ValueError(f"{name_or_path!r} with `revision` {revision!r}: write one revision, `id@revision`")
    return name, inline or revision


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
