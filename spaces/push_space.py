"""
Publish the demo as a Space on the Hub, in one commit, with the code of this package beside it.

    python spaces/push_space.py --repo-id NAMESPACE/NAME

Log in first with `hf auth login`. What the Space offers is then set in its settings, as the variables DEMO_MODELS,
DEMO_TEACHER and DEMO_VERIFICATION_MODELS.
"""

import argparse
import sys
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoFile

from headshare_hf.hub.failures import told_in_one_line


ROOT = Path(__file__).parents[1]
SUFFIXES = {".py", ".md", ".txt", ".typed"}
PACKAGE = "headshare_hf/"
# By it the files of an earlier publication are known.
MESSAGE = "Publish the demo"


def space_files() -> dict[str, Path]:
    """All files of the Space, by their names there."""
    demo = {path.name: path for path in Path(__file__).parent.iterdir() if path.suffix in SUFFIXES}
    source = ROOT / "src"
    package = {path.relative_to(source).as_posix(): path for path in (source / "headshare_hf").rglob("*")}
    code = {name: path for name, path in package.items() if path.is_file() and path.suffix in SUFFIXES}
    return {**demo, **code, "LICENSE": ROOT / "LICENSE"}


def push(repo_id: str, private: bool | None = None) -> str:
    """
    Publishes the Space. Files of an earlier publication that this one lacks are deleted in the same commit: whatever is
    in the folder of the package, where a module that is gone could still be imported, and beside it what nobody has
    changed since. Other files are the user's and stay.

    Args:
        repo_id (`str`): Where to, `namespace/name`; it is made if it does not exist.
        private (`bool`, *optional*): Whether a Space that is made is private.

    Returns:
        `str`: Address of the commit.

    Raises:
        ValueError: The Space is public, and `private=True` was asked for.
        huggingface_hub.errors.HfHubHTTPError: What else the Hub answers; also where somebody else made a commit meanwhile.
    """
    api = HfApi()
    repo_id = api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True).repo_id
    if private and not api.space_info(repo_id).private:
        raise ValueError(
            f"{repo_id} is public, and a private Space was asked for; make it private in its settings on the Hub, or choose "
            "another id"
        )
    before, files = str(api.space_info(repo_id).sha), space_files()
    additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()]
    earlier = _published_files(api, repo_id, before)
    deletions = [CommitOperationDelete(path_in_repo=name) for name in earlier if name not in files]
    done = api.create_commit(
        repo_id, [*additions, *deletions], commit_message=MESSAGE, repo_type="space", parent_commit=before
    )
    return done.commit_url


def _published_files(api: HfApi, repo_id: str, commit: str) -> list[str]:
    """What of a Space is of an earlier publication, by the commit that changed it last."""
    there = api.list_repo_tree(repo_id, recursive=True, expand=True, revision=commit, repo_type="space")
    return [
        entry.path
        for entry in there
        if isinstance(entry, RepoFile)
        and (entry.path.startswith(PACKAGE) or (entry.last_commit and entry.last_commit.title == MESSAGE))
    ]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo-id", required=True, metavar="ID", help="namespace/name of the Space")
    parser.add_argument("--private", action="store_true", default=None, help="make the Space private")
    options = parser.parse_args(arguments)
    with told_in_one_line():
        print(f"published: {push(options.repo_id, options.private)}")


if __name__ == "__main__":
    main(sys.argv[1:])
