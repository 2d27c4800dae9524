"""Thresholds of face verification that are stored with a model."""

from collections.abc import Sequence
from typing import Any


_KINDS: dict[str, type | tuple[type, ...]] = {
    "far": (float, int),
    "rule": str,
    "similarity": (float, int),
    "set": str,
    "num_impostor": int,
    "flip": bool,
}
_RULES = ("at_most", "nearest")


def check_thresholds(entries: Sequence[dict[str, Any]]) -> None:
    """
    Checks `HeadShareConfig.verification_thresholds`.

    Args:
        entries (`Sequence[dict]`): What is stored.

    Raises:
        ValueError: There is none, a key is missing, unknown or has a wrong value, a FAR is there twice, or `flip`
            differs between entries.
    """
    if not entries:
        raise ValueError("`verification_thresholds` is empty; leave it out")
    for index, entry in enumerate(entries):
        _check_entry(entry, f"`verification_thresholds[{index}]`")
    fars = [entry["far"] for entry in entries]
    twice = next((far for far in fars if fars.count(far) > 1), None)
    if twice is not None:
        raise ValueError(f"`verification_thresholds` has two entries for the FAR {twice:g}; keep one")
    if len({entry["flip"] for entry in entries}) > 1:
        raise ValueError("`verification_thresholds` differ in `flip`; measure all of them with or without it")


def _check_entry(entry: dict[str, Any], name: str) -> None:
    if entry.keys() != _KINDS.keys():
        raise ValueError(f"{name} has the keys {', '.join(entry)}; it needs {', '.join(_KINDS)}")
    for key, kind in _KINDS.items():
        if not isinstance(entry[key], kind) or (kind is not bool and isinstance(entry[key], bool)):
            raise ValueError(f"{name} has {key} {entry[key]!r}, which is of the wrong type")
    allowed = {
        "far": (0 < entry["far"] < 1, "between 0 and 1"),
        "rule": (entry["rule"] in _RULES, f"one of {', '.join(_RULES)}"),
        "similarity": (-1 <= entry["similarity"] <= 1, "a cosine in [-1, 1]"),
        "num_impostor": (entry["num_impostor"] > 0, "positive"),
    }
    for key, (fits, expected) in allowed.items():
        if not fits:
            raise ValueError(f"{name} has {key} {entry[key]!r}; it must be {expected}")
