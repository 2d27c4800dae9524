"""One commit on the Hub that holds all files of a model, and leaves nothing of an earlier one."""

import re
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import validate_repo_id

from .class_centers import CENTERS_FILE


CARD_FILE, TRAINING_FILE = "README.md", "training_config.json"
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
_NO_BRANCH = re.compile(r"refs/|[0-9a-f]{40}$")
# As git shortens the name of a commit.
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")
# What a commit is answered whose parent is no longer the head of the branch.
_OVERTAKEN = (409, 412)


def is_weights_file(name: str) -> bool:
    """Whether a file of a repository holds weights as the models of this package are saved."""
    return name == CENTERS_FILE or _WEIGHTS.fullmatch(name) is not None


def check_target(repo_id: str, revision: str | None) -> None:
    """
    Checks what can be checked without the Hub.

    Args:
        repo_id (`str`): Where to publish.
        revision (`str`, *optional*): Branch to commit to.

    Raises:
        ValueError: The id is none, or `revision` no name of a branch.
    """
    validate_repo_id(repo_id)
    if revision is not None and _NO_BRANCH.match(revision):
        raise ValueError(f"`revision` {revision!r} is no branch name, and commits go to a branch; give its name")


def open_repository(api: HfApi, repo_id: str, private: bool | None, revision: str | None) -> str:
    """
    Makes the repository and the branch where they do not exist.

    Args:
        api (`huggingface_hub.HfApi`): With the token.
        repo_id (`str`): With or without its namespace.
        private (`bool`, *optional*): Whether a repository that is made is private.
        revision (`str`, *optional*): Branch, made from `main`.

    Returns:
        `str`: The id with its namespace.

    Raises:
        ValueError: The repository is public and `private=True` was asked for, or `revision` is a tag or a commit.
    """
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if private and not api.model_info(repo_id).private:
        raise ValueError(
            f"{repo_id} is public, and a private repository was asked for; make it private in its settings on the Hub, "
            "or choose another id"
        )
    if revision is not None:
        _make_branch(api, repo_id, revision)
    return repo_id


def _make_branch(api: HfApi, repo_id: str, name: str) -> None:
    references = api.list_repo_refs(repo_id)
    if name in {branch.name for branch in references.branches}:
        return
    kind = "tag" if name in {tag.name for tag in references.tags} else None
    if kind is None and _SHORT_COMMIT.fullmatch(name):
        commits = (commit.commit_id for commit in api.list_repo_commits(repo_id))
        kind = "commit" if any(commit.startswith(name) for commit in commits) else None
    if kind is not None:
        raise ValueError(
            f"`revision` {name!r} is a {kind} of {repo_id}, and commits go to a branch; give the name of one"
        )
    api.create_branch(repo_id, branch=name, exist_ok=True)


def commit_files(
    api: HfApi, repo_id: str, files: Mapping[str, Path | bytes], revision: str | None, message: str
) -> tuple[CommitInfo, bool]:
    """
    Makes one commit of files.

    Large files are uploaded first and the commit that shows them comes last, so that whoever reads the repository sees
    the old state or the new one, and an upload that was cut is finished by calling this again. Weights and training
    configuration of an earlier publication that are not part of this one are removed. They are those of the commit that
    this one follows: another publication at the same time is not mixed with it.

    Args:
        api (`huggingface_hub.HfApi`): With the token.
        repo_id (`str`): With its namespace.
        files (`Mapping[str, Path | bytes]`): What they hold, or where they are, by their names in the repository.
        revision (`str`, *optional*): A branch that exists; `main` by default.
        message (`str`): Of the commit.

    Returns:
        `tuple[huggingface_hub.CommitInfo, bool]`: The commit that holds the content, and whether it was made now.

    Raises:
        OSError: Somebody else made a commit meanwhile; nothing was published.
        huggingface_hub.errors.HfHubHTTPError: What else the Hub answers, unchanged.
    """
    before = api.model_info(repo_id, revision=revision).sha
    there = api.list_repo_files(repo_id, revision=before)
    outdated = [file for file in there if is_weights_file(file) or file == TRAINING_FILE]
    additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
    deletions = [CommitOperationDelete(path_in_repo=file) for file in outdated if file not in files]
    try:
        done = api.create_commit(
            repo_id, [*additions, *deletions], commit_message=message, revision=revision, parent_commit=before
        )
    except HfHubHTTPError as error:
        if error.response.status_code not in _OVERTAKEN:
            raise
        raise OSError(
            f"{repo_id}: somebody else made a commit to {revision or 'main'} since its files were listed; nothing of this "
            "model was published; publish it again to replace the other"
        ) from error
    return done, done.oid != before
