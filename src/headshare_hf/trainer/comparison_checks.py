"""Names in a comparison file, and what is said about wrong ones."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from .config import DistillationConfig


# The comparison tells runs apart by these, and nothing else should.
_SET_HERE = ("output_dir", "seed", "save_strategy", "eval_strategy", "metric_for_best_model", "load_best_model_at_end")


def nearest(name: str, known: Any) -> str:
    """Ends a message about a wrong name with the closest right ones."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(map(str, known))}"


def field_names(kind: Any) -> list[str]:
    """Of a dataclass, those that it is built from."""
    return [entry.name for entry in fields(kind) if entry.init]


def check_names(section: str, content: Mapping[str, Any], known: Sequence[str]) -> None:
    """
    Raises:
        ValueError: `content` is no mapping, or has a name that is not `known`.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"`{section}` is {content!r}; it must consist of fields")
    for name in content:
        if name not in known:
            raise ValueError(f"`{section}` has no field {name!r}{nearest(name, known)}")


def check_training(section: str, content: Mapping[str, Any], further: Sequence[str] = ()) -> None:
    """
    Raises:
        ValueError: `content` has a name that is neither of [`DistillationConfig`] nor `further`, or one that the
            comparison sets itself.
    """
    names = [*field_names(DistillationConfig), *further]
    check_names(section, content, names)
    for name in _SET_HERE:
        if name in content:
            raise ValueError(f"`{section}.{name}` is set by the comparison itself; leave it out")
