"""Errors of safetensors files that say which file it is, and what to do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .hub_cache import local_folder


# Of every transformers model, whole or in shards.
_WEIGHTS = "model*.safetensors"


def damaged(path: Any, error: SafetensorError) -> ValueError:
    """
    The error to raise in the place of one that names no file.

    Args:
        path (`str` or `Path`): The file.
        error (`SafetensorError`): What reading it raised.
    """
    return ValueError(
        f"{path} is damaged or cut off ({error}); save it again, or download it again with `force_download=True` "
        "(`hf download --force-download`)"
    )


@contextmanager
def damage_named(name_or_path: Any, options: Mapping[str, Any]) -> Iterator[None]:
    """
    Lets an error of reading weights name the file that is damaged.

    Args:
        name_or_path, options: As [`local_folder`] takes them.

    Raises:
        ValueError: A safetensors file is damaged.
    """
    try:
        yield
    except SafetensorError as error:
        path = _damaged_file(local_folder(name_or_path, options))
        raise damaged(path or f"a safetensors file of {name_or_path}", error) from error


def _damaged_file(folder: Path | None) -> Path | None:
    """The first file of weights that cannot be opened, which compares its size with what its header says."""
    for path in sorted(folder.glob(_WEIGHTS)) if folder is not None else ():
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError:
            return path
    return None
