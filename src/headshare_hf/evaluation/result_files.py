"""The files of an evaluation, to which the next one of the same model adds its sets."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .report import render_report
from .roc import Roc
from .verification_plots import plot_det, plot_roc


def read_earlier_sets(folder: Path, model: Mapping[str, Any], switches: Mapping[str, bool]) -> dict[str, Any]:
    """
    The sets that are in `results.json` already.

    Args:
        folder (`Path`): Of the results.
        model (`Mapping[str, Any]`): The description of the model or of the features.
        switches (`Mapping[str, bool]`): From [`VerificationOptions.switches`], those that have an effect.

    Returns:
        `dict[str, Any]`: As in the `"sets"` of [`run_verification`]; empty where there are no results yet.

    Raises:
        ValueError: The file is of something else, of another model, or of other switches; names what differs.
    """
    path = folder / "results.json"
    if not path.is_file():
        return {}
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        _compare_models(path, earlier["model"], model)
        sets: dict[str, Any] = earlier["sets"]
        for name, record in sets.items():
            _compare_switches(path, name, record, switches)
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not the result of such an evaluation; give another --output") from error
    return sets


def write_results(folder: Path, record: Mapping[str, Any], name: str, roc: Roc) -> None:
    """
    Writes tables and the curves of one set.

    Args:
        folder (`Path`): Where to.
        record (`Mapping[str, Any]`): What is known so far.
        name (`str`): The set that is new in it.
        roc ([`Roc`]): Its curve.
    """
    plot_roc({name: roc}, folder / name / "roc.png")
    plot_det({name: roc}, folder / name / "det.png")
    for file, text in (
        ("results.json", json.dumps(record, indent=2, allow_nan=False) + "\n"),
        ("results.md", render_report(record)),
    ):
        partial = folder / f"{file}.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, folder / file)


def _compare_models(path: Path, earlier: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    before, now = _identity(earlier), _identity(model)
    for key in [*now, *before]:
        if before.get(key) != now.get(key):
            raise ValueError(
                f"{path} has the results of another model: its {key} is {before.get(key)}, and now it is "
                f"{now.get(key)}; give another --output"
            )


def _identity(model: Mapping[str, Any]) -> dict[str, Any]:
    """What embeddings depend on; the name may be another one."""
    digests = {key: model[key] for key in ("weights_sha256", "sha256") if key in model}
    # Networks compute in float32 unless accelerate was told otherwise.
    digests["precision"] = model.get("precision", "float32")
    return {**digests, **{f"processor.{key}": value for key, value in model.get("processor", {}).items()}}


def _compare_switches(path: Path, name: str, earlier: Mapping[str, Any], switches: Mapping[str, bool]) -> None:
    for key, now in switches.items():
        # Sets of pairs have fewer switches.
        if earlier.get(key, now) != now:
            raise ValueError(
                f"{path} has {name} with `{key}` {earlier[key]}, and now it is {now}; give another --output"
            )
