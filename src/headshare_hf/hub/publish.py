"""Publishing a folder: what of it goes to the Hub, what it must be like, and one commit that holds all of it."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.utils import validate_repo_id

from .publish_files import CARD_FILE, TRAINING_FILE, is_weights_file, select_files


logger = logging.getLogger(__name__)

# What the code of a card loads, in the words of the card's templates.
_LOADED = re.compile(r'(?:from_pretrained\(|model=)"([^"]+)"')

_NO_BRANCH = re.compile(r"refs/|[0-9a-f]{40}$")


@dataclass(frozen=True)
class Publication:
    """
    What [`publish_folder`] has done.

    Attributes:
        repo_id (`str`): With its namespace.
        commit (`str`): The commit that holds the content.
        url (`str`): Where that can be seen.
        files (`tuple[str, ...]`): All that was to be published, by their names in the repository.
        changed (`bool`): Whether a commit was made; `False` where the repository held the same content already.
    """

    repo_id: str
    commit: str
    url: str
    files: tuple[str, ...]
    changed: bool


def publish_folder(
    folder: str | Path,
    repo_id: str,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "Upload model",
    token: str | None = None,
) -> Publication:
    """
    Publishes a model in one commit: weights, configuration, image processor, code, card, training configuration.

    Nothing else of the folder is sent, see [`select_files`]. Large files are uploaded first and the commit that shows
    them comes last, so that whoever reads the repository sees the old state or the new one, and an upload that was cut
    is finished by calling this again. Weights and training configuration of an
    earlier publication that are not part of this one are removed.

    Args:
        folder (`str` or `Path`): With the files of `save_pretrained` and a `README.md`.
        repo_id (`str`): Where to, `namespace/name`; without a namespace, that of the user. It is made if it does not
            exist. The examples in the card are made to load it.
        private (`bool`, *optional*): Whether a repository that is made is private.
        revision (`str`, *optional*): Branch to commit to; it is made from `main` if it does not exist.
        message (`str`, *optional*): Of the commit.
        token (`str`, *optional*): Of the Hub; by default the one that is stored.

    Returns:
        [`Publication`]

    Raises:
        ValueError: The repository id is none, a file is missing, damaged, or not what can be published, `revision` is
            no name of a branch, or the repository is public and `private=True` was asked for. No content has been sent
            then, and no branch was made.
        huggingface_hub.errors.HfHubHTTPError: What the Hub answers, unchanged.
    """
    validate_repo_id(repo_id)
    if revision is not None and _NO_BRANCH.match(revision):
        raise ValueError(f"`revision` {revision!r} is no branch name, and commits go to a branch; give its name")
    files = select_files(folder)
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    _check_privacy(api, repo_id, private)
    if revision is not None:
        _make_branch(api, repo_id, revision)
    before = api.model_info(repo_id, revision=revision)
    there = api.list_repo_files(repo_id, revision=revision)
    outdated = [file for file in there if is_weights_file(file) or file == TRAINING_FILE]
    done = api.create_commit(
        repo_id,
        [
            *_additions(files, repo_id),
            *(CommitOperationDelete(path_in_repo=file) for file in outdated if file not in files),
        ],
        commit_message=message,
        revision=revision,
    )
    changed = done.oid != before.sha
    logger.info("%s: %s", repo_id, f"commit {done.oid}" if changed else "it holds this content already, no commit")
    return Publication(repo_id, done.oid, done.commit_url, tuple(files), changed)


def _check_privacy(api: HfApi, repo_id: str, private: bool | None) -> None:
    if private and not api.model_info(repo_id).private:
        raise ValueError(
            f"{repo_id} is public, and a private repository was asked for; make it private in its settings on the Hub, "
            "or choose another id"
        )


def _make_branch(api: HfApi, repo_id: str, name: str) -> None:
    if name in {tag.name for tag in api.list_repo_refs(repo_id).tags}:
        raise ValueError(
            f"`revision` {name!r} is a tag of {repo_id}, and commits go to a branch; give the name of one"
        )
    api.create_branch(repo_id, branch=name, exist_ok=True)


def _additions(files: Mapping[str, Path], repo_id: str) -> list[CommitOperationAdd]:
    card = files[CARD_FILE].read_text(encoding="utf-8")
    contents: dict[str, Path | bytes] = {**files, CARD_FILE: address_card(card, repo_id).encode()}
    return [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in contents.items()]


def address_card(text: str, repo_id: str) -> str:
    """
    A card whose examples load `repo_id`. A card is often written before that is known.

    Args:
        text (`str`): The card. One that [`render_card`] did not write is returned as it is.
        repo_id (`str`): Where it will be.
    """
    loaded = _LOADED.search(text)
    if loaded is None or not re.search(r"^- headshare_hf$", text, re.MULTILINE):
        return text
    return text.replace(f'"{loaded[1]}"', f'"{repo_id}"')
