"""
Publish the demo as a Space on the Hub, in one commit, with the code of this package beside it.

    python spaces/push_space.py --repo-id NAMESPACE/NAME

Log in first with `hf auth login`. What the Space offers is then set in its settings, as the variables DEMO_MODELS,
DEMO_TEACHER and DEMO_VERIFICATION_MODELS.
"""

import argparse
import sys
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi

from headshare_hf.hub.failures import told_in_one_line


ROOT = Path(__file__).parents[1]
SUFFIXES = {".py", ".md", ".txt", ".typed"}


def space_files() -> dict[str, Path]:
    """All files of the Space, by their names there."""
    demo = {path.name: path for path in Path(__file__).parent.iterdir() if path.suffix in SUFFIXES}
    source = ROOT / "src"
    package = {path.relative_to(source).as_posix(): path for path in (source / "headshare_hf").rglob("*")}
    code = {name: path for name, path in package.items() if path.is_file() and path.suffix in SUFFIXES}
    return {**demo, **code, "LICENSE": ROOT / "LICENSE"}


def push(repo_id: str, private: bool | None = None) -> str:
    """
    Publishes the Space.

    Args:
        repo_id (`str`): Where to, `namespace/name`; it is made if it does not exist.
        private (`bool`, *optional*): Whether a Space that is made is private.

    Returns:
        `str`: Address of the commit.

    Raises:
        ValueError: The Space is public, and `private=True` was asked for.
    """
    api = HfApi()
    repo_id = api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True).repo_id
    if private and not api.space_info(repo_id).private:
        raise ValueError(
            f"{repo_id} is public, and a private Space was asked for; make it private in its settings on the Hub, or choose "
            "another id"
        )
    files = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in space_files().items()]
    return api.create_commit(repo_id, files, commit_message="Publish the demo", repo_type="space").commit_url


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo-id", required=True, metavar="ID", help="namespace/name of the Space")
    parser.add_argument("--private", action="store_true", default=None, help="make the Space private")
    options = parser.parse_args(arguments)
    with told_in_one_line():
        print(f"published: {push(options.repo_id, options.private)}")


if __name__ == "__main__":
    main(sys.argv[1:])
