"""Publishing a folder: what of it goes to the Hub, what it must be like, and one commit that holds all of it."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi

from ..models.card_thresholds import state_thresholds
from ..models.hub_cache import CONFIG_FILE
from ..models.hub_card import address_card
from ..models.hub_commit import CARD_FILE, check_target, commit_files, open_repository
from .publish_files import select_files


logger = logging.getLogger(__name__)


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
    source: str | Path | None = None,
) -> Publication:
    """
    Publishes a model in one commit: weights, configuration, image processor, code, card, training configuration.

    Nothing else of the folder is sent, see [`select_files`]. Whoever reads the repository sees the old state or the new
    one, and an upload that was cut is finished by calling this again. Weights and training configuration of an earlier
    publication that are not part of this one are removed.

    Args:
        folder (`str` or `Path`): With the files of `save_pretrained` and a `README.md`.
        repo_id (`str`): Where to, `namespace/name`; without a namespace, that of the user. It is made if it does not
            exist. The examples in the card are made to load it.
        private (`bool`, *optional*): Whether a repository that is made is private.
        revision (`str`, *optional*): Branch to commit to; it is made from `main` if it does not exist.
        message (`str`, *optional*): Of the commit.
        token (`str`, *optional*): Of the Hub; by default the one that is stored.
        source (`str` or `Path`, *optional*): The folder that the files were copied from, if `folder` is not their own; card
            and training configuration may show no path beside it.

    Returns:
        [`Publication`]

    Raises:
        ValueError: The repository id is none, a file is missing, damaged, or not what can be published, `revision` is
            no name of a branch, or the repository is public and `private=True` was asked for. No content has been sent
            then, and no branch was made.
        OSError: Somebody else made a commit to the branch meanwhile; nothing was published.
        huggingface_hub.errors.HfHubHTTPError: What else the Hub answers, unchanged.
    """
    check_target(repo_id, revision)
    files = select_files(folder, source)
    card = _read_card(files)
    api = HfApi(token=token)
    repo_id = open_repository(api, repo_id, private, revision)
    contents: dict[str, Path | bytes] = {**files, CARD_FILE: address_card(card, repo_id).encode()}
    done, changed = commit_files(api, repo_id, contents, revision, message)
    logger.info("%s: %s", repo_id, f"commit {done.oid}" if changed else "it holds this content already, no commit")
    return Publication(repo_id, done.oid, done.commit_url, tuple(files), changed)


def _read_card(files: dict[str, Path]) -> str:
    """The card, with the thresholds of the configuration that is published beside it."""
    config = json.loads(files[CONFIG_FILE].read_text(encoding="utf-8"))
    return state_thresholds(files[CARD_FILE].read_text(encoding="utf-8"), config.get("verification_thresholds"))
