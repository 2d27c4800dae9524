"""The card of a model that is published: what it must and must not say, and whom its examples load."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from .card_metrics import check_metric, check_metric_list


# What every card has that this package wrote.
_OWN_TAG = "headshare_hf"
# What the code of a card loads, in the words of the card's templates.
_LOADED = re.compile(r'(?:from_pretrained\(|model=)"([^"]+)"')
# Neither the end of an address or of a tag, nor a division.
_ABSOLUTE = re.compile(r"(?<![\w./:~<-])/[^\s\"'`<>|()\[\]{},;/][^\s\"'`<>|()\[\]{},;]*")


def check_card(card: ModelCard, name: str = "the model card") -> None:
    """
    Checks the metadata of a card.

    Args:
        card (`huggingface_hub.ModelCard`): The card. Results of one that this package did not write are not looked at.
        name (`str`, *optional*): What the message of an error calls it.

    Raises:
        ValueError: They say no license; or of a card of this package, a metric is unknown, in a result or in the list
            `metrics`, or its value no fraction in [0, 1]. The field is named.
    """
    data = card.data.to_dict()
    if not data.get("license"):
        raise ValueError(f"{name} says no license; add `license: ...` to its metadata")
    if not is_own_card(card):
        return
    try:
        check_metric_list(data.get("metrics") or [], "metrics")
        for place, metric in _metrics(data):
            check_metric(metric, place)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def is_own_card(card: ModelCard) -> bool:
    """Whether the metadata of a card say that this package wrote it."""
    return _OWN_TAG in (card.data.to_dict().get("tags") or [])


def _metrics(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every metric of the metadata, and where it is."""
    for model, entry in enumerate(data.get("model-index") or []):
        for number, result in enumerate(entry["results"]):
            for index, metric in enumerate(result["metrics"]):
                yield f"model-index[{model}].results[{number}].metrics[{index}]", metric


def address_card(text: str, repo_id: str) -> str:
    """
    A card whose examples load `repo_id`. A card is often written before that is known.

    Args:
        text (`str`): The card. One that this package did not write is returned as it is.
        repo_id (`str`): Where it will be.
    """
    loaded = _LOADED.search(text)
    if loaded is None or not is_own_card(ModelCard(text)):
        return text
    return text.replace(f'"{loaded[1]}"', f'"{repo_id}"')


def check_places(text: str, name: str | Path, folders: Iterable[Path]) -> None:
    """
    Refuses a text that shows where something is on this machine.

    Args:
        text (`str`): What is to be published.
        name (`str` or `Path`): What the message of an error calls it.
        folders (`Iterable[Path]`): Absolute; paths into them or into the home folder are refused even where nothing is
            there any more. Others are refused where something is there.

    Raises:
        ValueError: There is such a path; it is named.
    """
    places = {str(place) for place in (Path.home(), *folders)} - {"/"}
    known = [re.search(rf"(?<![\w./:~-]){re.escape(place)}(?![\w.-])[^\s\"'`<>]*", text) for place in sorted(places)]
    tokens = (token.rstrip(".,:;") for token in _ABSOLUTE.findall(text))
    found = [*(match[0] for match in known if match), *filter(os.path.exists, tokens)]
    if found:
        raise ValueError(
            f"{name} contains {found[0]!r}, a path of this machine; write a Hub id or a name in its place"
        )
