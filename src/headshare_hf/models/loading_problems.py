"""Weights that do not fit a model: which tensors, what they look like and what to do, in the place of transformers' report."""

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from safetensors import safe_open

from .class_centers import CENTERS_FILE, PREFIX
from .configuration_headshare import HeadShareConfig
from .hub_cache import WEIGHTS_FILE, local_folder
from .look_alike import look_alike


# What `from_pretrained(..., output_loading_info=True)` tells.
LOADING_PROBLEMS = ("missing_keys", "unexpected_keys", "mismatched_keys")
# Tensors in the message of an error; another network differs in hundreds.
_SHOWN = 5
# Of several versions of transformers.
_REPORTING = ("transformers.modeling_utils", "transformers.utils.loading_report")


def misfit(name: Any, model: Any, info: Mapping[str, Collection[Any]], options: Mapping[str, Any]) -> str:
    """
    What is said of weights that do not fit.

    Args:
        name (`str`, `Path` or `None`): Hub id or folder of the weights; `None` where they are in `state_dict` of `options`.
        model (`Any`): What they were read for, of this package or another one.
        info (`Mapping[str, Collection]`): The problems of loading, as transformers tells them.
        options (`Mapping[str, Any]`): The arguments of `from_pretrained`.
    """
    given = options.get("state_dict")
    shapes = _stored_shapes(name, options) if given is None else {key: value.shape for key, value in given.items()}
    found = look_alike(shapes, model)
    told = f" ({found.told})" if found.told else ""
    ours = isinstance(model.config, HeadShareConfig)
    backbone = f" with backbone {model.config.backbone!r}" if ours else ""
    remedy = _add_centers(given is not None) if ours and _lacks_centers_alone(model, info) else found.remedy
    source = name if given is None else "the given `state_dict`"
    return f"{source} does not fit {type(model).__name__}{backbone}{told}; {describe_problems(info)}. {remedy}"


def describe_problems(info: Mapping[str, Collection[Any]]) -> str:
    """
    The first few tensors of every kind of problem, and how many more there are.

    Args:
        info (`Mapping[str, Collection]`): As [`misfit`] takes it, or some kinds of it.
    """
    return "; ".join(f"{kind.replace('_', ' ')}: {_first(info[kind])}" for kind in LOADING_PROBLEMS if info.get(kind))


def tensor_name(problem: Any) -> str:
    """The name in an entry of `info`; what has another shape comes with both shapes."""
    return problem if isinstance(problem, str) else problem[0]


def _first(tensors: Collection[Any]) -> str:
    """The first few names; of a tensor of another shape also both shapes."""
    shown = [
        tensor if isinstance(tensor, str) else f"{tensor[0]} is {tuple(tensor[1])} instead of {tuple(tensor[2])}"
        for tensor in sorted(tensors)[:_SHOWN]
    ]
    more = len(tensors) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _lacks_centers_alone(model: Any, info: Mapping[str, Collection[Any]]) -> bool:
    missing, *others = (info[kind] for kind in LOADING_PROBLEMS)
    return model.config.head_type != "linear" and not any(others) and all(key.startswith(PREFIX) for key in missing)


def _add_centers(to_the_given: bool) -> str:
    where = f"Add the tensors of {CENTERS_FILE} to it" if to_the_given else f"Put {CENTERS_FILE} beside the weights"
    return f"These are its class centers. {where}, or load HeadShareModel, which needs none."


def _stored_shapes(name: Any, options: Mapping[str, Any]) -> dict[str, torch.Size]:
    """What the safetensors files hold that were just read, by the headers of these files."""
    folder = local_folder(name, options)
    if folder is None:
        return {}
    whole = folder / WEIGHTS_FILE
    shapes = {}
    for path in [whole] if whole.is_file() else sorted(folder.glob("model-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            shapes.update({key: torch.Size(file.get_slice(key).get_shape()) for key in file.keys()})
    return shapes


@contextlib.contextmanager
def load_reports_held() -> Iterator[list[logging.LogRecord]]:
    """
    Keeps transformers from logging which tensors a file lacks: any tensor that is really missing is an error here, and
    class centers come from another file.

    Yields:
        `list[logging.LogRecord]`: What was kept, for [`release`].
    """
    held: list[logging.LogRecord] = []

    def passes(record: logging.LogRecord) -> bool:
        is_report = "LOAD REPORT" in record.getMessage()
        if is_report:
            held.append(record)
        return not is_report

    loggers = [logging.getLogger(name) for name in _REPORTING]
    for logger in loggers:
        logger.addFilter(passes)
    try:
        yield held
    finally:
        for logger in loggers:
            logger.removeFilter(passes)


def release(held: list[logging.LogRecord]) -> None:
    """Logs what [`load_reports_held`] kept: of weights that are good enough, nobody else tells what is in them."""
    for record in held:
        logging.getLogger(record.name).handle(record)
