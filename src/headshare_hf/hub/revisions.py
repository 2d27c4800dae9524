"""Names of models with a revision."""

from pathlib import Path


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
