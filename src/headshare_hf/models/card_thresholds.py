"""What a model card says of stored thresholds, kept in agreement with the configuration beside it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .thresholds import check_thresholds


_NONE = "# No threshold is stored with these weights: measure one, and give it in the place of this number."
_HEAD = "Thresholds that are stored with the weights (`verification_thresholds` of the configuration):"
_END = "Each holds for the pairs that it was measured on and for no others."
_CALL = re.compile(rf'^(?:{re.escape(_NONE)}\n)?print\(verify\("image_a\.png", "image_b\.png".*\)\)$', re.MULTILINE)
_TABLE = re.compile(rf"\n{re.escape(_HEAD)}\n.*?\n{re.escape(_END)}\n", re.DOTALL)
# What the table comes after, in the words of the card's template.
_USE = re.compile(
    r"is for you to decide, on pairs like yours\.\n(?:\nOr as a pipeline:\n\n```python\n.*?\n```\n)?", re.DOTALL
)
# The code of the card adds mirrored images.
_MIRRORED = "model(pixels.flip(-1))"


def threshold_call(thresholds: Sequence[Mapping[str, Any]], flip: bool) -> str:
    """
    The lines of a card's example that compare two images.

    Args:
        thresholds (`Sequence[Mapping]`): `HeadShareConfig.verification_thresholds`; may be empty.
        flip (`bool`): Whether embeddings of mirrored images are added where no stored threshold says so.
    """
    if thresholds:
        return 'print(verify("image_a.png", "image_b.png"))'
    return f'{_NONE}\nprint(verify("image_a.png", "image_b.png", threshold=0.3, flip={flip}))'


def threshold_table(thresholds: Sequence[Mapping[str, Any]]) -> str:
    """The paragraph of a card that lists stored thresholds; empty where there are none."""
    if not thresholds:
        return ""
    columns = ("FAR", "rule", "cosine", "measured on", "impostor pairs", "mirrored images")
    rows = [columns, ("---",) * len(columns), *(_row(entry) for entry in thresholds)]
    return "\n".join([_HEAD, "", *(f"| {' | '.join(row)} |" for row in rows), "", _END])


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    mirrored = "added" if entry["flip"] else "not used"
    measured = (entry["set"], f"{entry['num_impostor']:,}", mirrored)
    return (f"{entry['far']:g}", entry["rule"], f"{entry['similarity']:.4f}", *measured)


def state_thresholds(text: str, thresholds: Sequence[Mapping[str, Any]] | None) -> str:
    """
    A card that says of thresholds what a configuration holds. They are often measured after the card was written.

    Args:
        text (`str`): The card. One that does not speak of thresholds is returned as it is.
        thresholds (`Sequence[Mapping]`, *optional*): `HeadShareConfig.verification_thresholds`.

    Raises:
        ValueError: A threshold is wrong.
    """
    entries = [dict(entry) for entry in thresholds or ()]
    if entries:
        check_thresholds(entries)
    text_without = _TABLE.sub("", text)
    use = _USE.search(text_without)
    if use is None:
        return text
    table = threshold_table(entries)
    inserted = f"\n{table}\n" if table else ""
    text = text_without[: use.end()] + inserted + text_without[use.end() :]
    call = threshold_call(entries, _MIRRORED in text)
    return _CALL.sub(lambda match: call, text)
