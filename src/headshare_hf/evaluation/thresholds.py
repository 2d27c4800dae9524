"""From pairs to thresholds at which a model decides, and into the configuration of the model."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data import VerificationSet
from ..models.card_thresholds import state_thresholds
from ..models.hub_commit import CARD_FILE
from ..models.thresholds import check_thresholds
from .roc import Roc


CALIBRATION_FARS = (1e-2, 1e-3, 1e-4)
_RULE = "at_most"


def calibrate_thresholds(roc: Roc, set_name: str, flip: bool) -> list[dict[str, Any]]:
    """
    The similarities from which on pairs are accepted at FAR 1e-2, 1e-3 and 1e-4, by the rule `"at_most"`. A FAR that the
    set has too few impostor pairs for, or at which no pair is accepted, is left out.

    Args:
        roc ([`Roc`]): Of cosines.
        set_name (`str`): What the set is called.
        flip (`bool`): Whether embeddings of mirrored images were added.

    Returns:
        `list[dict]`: As `HeadShareConfig.verification_thresholds`.
    """
    fars = [far for far in CALIBRATION_FARS if roc.is_measurable(far)]
    similarities = {far: roc.threshold_at_far(far, _RULE) for far in fars}
    return [
        {
            "far": far,
            "rule": _RULE,
            "similarity": similarity,
            "set": set_name,
            "num_impostor": roc.num_impostor,
            "flip": flip,
        }
        for far, similarity in similarities.items()
        if math.isfinite(similarity)
    ]


def check_can_store(model: str | Path) -> None:
    """
    Checks, before anything is computed, that thresholds can be written.

    Args:
        model (`str` or `Path`): Folder of the model.

    Raises:
        ValueError: It is no local folder with a `config.json`.
    """
    if not (Path(model) / "config.json").is_file():
        raise ValueError(
            f"thresholds are stored in the config.json of a local folder, and {model} is none; download the model first, "
            f"e.g. with `hf download {model} --local-dir FOLDER`, and give that folder"
        )


def check_can_calibrate(pairs: VerificationSet) -> None:
    """
    Checks, before anything is computed, that a set has enough pairs for a threshold.

    Args:
        pairs ([`VerificationSet`]): The set.

    Raises:
        ValueError: It has too few pairs of two people.
    """
    found, needed = int((~pairs.is_same).sum()), round(1 / CALIBRATION_FARS[0])
    if found < needed:
        raise ValueError(
            f"{pairs.name} has {found} pairs of two people, and a threshold at a FAR of {CALIBRATION_FARS[0]:g} needs at "
            f"least {needed}; use a larger set, or leave --store-thresholds out"
        )


def store_thresholds(model: str | Path, thresholds: Sequence[dict[str, Any]]) -> None:
    """
    Writes thresholds into the `config.json` of a model, in place of those that were there. Nothing else in it changes. A
    card of this package that lies beside it, `README.md`, is brought into agreement.

    Args:
        model (`str` or `Path`): Folder of the model.
        thresholds (`Sequence[dict]`): What [`calibrate_thresholds`] returned.

    Raises:
        ValueError: It is no local folder, there is no threshold to store, or one is wrong.
    """
    check_can_store(model)
    if not thresholds:
        raise ValueError(
            f"no threshold can be stored in {model}: a FAR of {CALIBRATION_FARS[0]:g} needs at least "
            f"{round(1 / CALIBRATION_FARS[0])} pairs of two people, and an accepted pair of one; use a larger set"
        )
    check_thresholds(thresholds)
    path = Path(model) / "config.json"
    content = {**json.loads(path.read_text(encoding="utf-8")), "verification_thresholds": list(thresholds)}
    _write(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
    card = path.with_name(CARD_FILE)
    if card.is_file():
        _write(card, state_thresholds(card.read_text(encoding="utf-8"), thresholds))


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
