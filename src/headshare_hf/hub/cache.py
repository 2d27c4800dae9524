"""What of a repository is on this disk."""

from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name


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
