"""Trained classifiers, students and teachers, from the Hub, its cache, or a folder."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from ..hub.revisions import split_revision
from ..models import HeadShareConfig, HeadShareForImageClassification, HeadShareModel, find_classifier
from ..models.damaged_files import damage_named
from ..models.hub_cache import CONFIG_FILE, INDEX_FILE, PROCESSOR_FILE, WEIGHTS_FILE, cached_commit, explained
from ..models.loading_problems import (
    LOADING_PROBLEMS,
    describe_problems,
    load_reports_held,
    misfit,
    release,
    tensor_name,
)
from .embedder import as_teacher, without_classes


# As `misfit` takes it.
_Info = Mapping[str, Collection[Any]]
_Check = Callable[[str, nn.Module, _Info, dict[str, Any]], None]
# What leaves tensors of a model with random values.
_LACKING = ("missing_keys", "mismatched_keys")


def load_classifier(name_or_path: str, revision: str | None = None, **kwargs: Any) -> Any:
    """
    A trained image classifier, from the Hub or a folder.

    Args:
        name_or_path (`str`): Folder, Hub id, or `id@revision`.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        kwargs: Further arguments of `from_pretrained`.

    Raises:
        OSError: There is no such model, or it is private, gated, or neither in the cache nor to be reached. It is the
            error of transformers, which has the one of the Hub as its cause, and tells what the cache holds.
        ValueError: A file is damaged, or a tensor is missing or of another shape. transformers would fill it with random
            numbers, and a random head would then be shared.
    """
    name_or_path, revision = split_revision(name_or_path, revision)
    model = _load(name_or_path, revision, _check_all, **kwargs)
    if revision is not None:
        # So that cards can say which one it was. This name is not saved with the model.
        model.config._name_or_path = f"{name_or_path}@{revision}"
    return model


def load_with_new_head(name_or_path: str, label_names: Sequence[str], revision: str | None = None) -> Any:
    """
    A classifier of other classes than those that its weights were trained for: the start of a fine-tuning. Everything but
    its classifier is trained, and that is drawn from the random numbers of torch.

    Args:
        name_or_path (`str`): Folder, Hub id, or `id@revision`.
        label_names (`Sequence[str]`): Name of every class, in order.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.

    Raises:
        OSError: As [`load_classifier`].
        ValueError: A tensor that is not of the classifier is missing or of another shape, or the network has no classifier
            that could be shared.
    """
    network, revision = split_revision(name_or_path, revision)
    with explained(network, {"revision": revision}, CONFIG_FILE):
        config = AutoConfig.from_pretrained(network, revision=revision)
    # Afterwards, because the configuration of a timm network takes its own labels before those it is given.
    name_classes(config, label_names)
    if isinstance(config, HeadShareConfig):
        # Its class centers, where it has any, are in a file that need not be there.
        model: Any = HeadShareForImageClassification(config)
        trained = HeadShareModel.from_pretrained(network, revision=revision)
        model.headshare.load_state_dict(trained.state_dict())
        return model
    model = _load(network, revision, _check_outside, config=config)
    find_classifier(model).reset_parameters()
    return model


def load_teacher(
    name_or_path: str, revision: str | None = None, embeddings_only: bool = False, **kwargs: Any
) -> tuple[nn.Module, Any]:
    """
    A teacher and its image processor, from the Hub or a folder. Both are of one commit.

    Args:
        name_or_path, revision, kwargs: As [`load_classifier`] takes them.
        embeddings_only (`bool`, *optional*, defaults to `False`): Whether its classifier may be missing; what there is of it
            is not read. For methods on embeddings, with a [`HeadShareModel`] or any backbone that transformers makes an image
            classifier of.

    Returns:
        `tuple[nn.Module, Any]`: The model, and the processor.

    Raises:
        OSError, ValueError: As [`load_classifier`].
    """
    load = _load_embedder if embeddings_only else load_classifier
    model = load(name_or_path, revision, **kwargs)
    name, revision = split_revision(name_or_path, revision)
    options = {**kwargs, "revision": cached_commit(name, {"revision": revision, **kwargs}) or revision}
    with explained(name, options, PROCESSOR_FILE):
        return model, AutoImageProcessor.from_pretrained(name, **options)


def _load_embedder(name_or_path: str, revision: str | None = None, **kwargs: Any) -> Any:
    network, revision = split_revision(name_or_path, revision)
    with explained(network, {"revision": revision}, CONFIG_FILE):
        config = AutoConfig.from_pretrained(network, revision=revision)
    if isinstance(config, HeadShareConfig):
        return as_teacher(HeadShareModel.from_pretrained(network, revision=revision, **kwargs))
    return without_classes(_load(network, revision, _check_outside, **kwargs))


def name_classes(config: Any, label_names: Sequence[str]) -> None:
    """Sets the names of the classes in the configuration of a model."""
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in config.id2label.items()}
    if hasattr(config, "label_names"):
        # The configuration of a timm network writes these, once it was read with some.
        config.label_names = list(label_names)


def given_classifier(model: nn.Module | str | Path | None) -> nn.Module | None:
    """
    Args:
        model (`nn.Module`, `str` or `Path`, *optional*): A network, which is returned as it is, or what [`load_classifier`]
            takes.

    Raises:
        OSError, ValueError: As [`load_classifier`].
    """
    return load_classifier(os.fspath(model)) if isinstance(model, str | os.PathLike) else model


def given_teacher(teacher: nn.Module | str | Path | None, processor: Any = None) -> tuple[nn.Module | None, Any]:
    """
    Args:
        teacher (`nn.Module`, `str` or `Path`, *optional*): A network, or what [`load_teacher`] takes.
        processor (`Any`, *optional*): Its image processor; goes before the one that lies beside its weights, which need
            not be there then.

    Returns:
        `tuple[nn.Module, Any]`: The network, and its processor.

    Raises:
        OSError, ValueError: As [`load_teacher`].
    """
    if processor is None and isinstance(teacher, str | os.PathLike):
        return load_teacher(os.fspath(teacher))
    return as_teacher(given_classifier(teacher)), processor


def _load(name: str, revision: str | None, check: _Check, **kwargs: Any) -> Any:
    """A classifier whose weights `check` does not refuse for what they lack; transformers reports what else is odd."""
    options = {"output_loading_info": True, "ignore_mismatched_sizes": True, "revision": revision, **kwargs}
    with load_reports_held() as reports:
        with damage_named(name, options), explained(name, options, WEIGHTS_FILE, INDEX_FILE):
            model, info = AutoModelForImageClassification.from_pretrained(name, **options)
        check(name, model, info, options)
    if any(info[kind] for kind in LOADING_PROBLEMS):
        release(reports)
    return model


def _check_all(name: str, model: nn.Module, info: _Info, options: dict[str, Any]) -> None:
    """Refuses tensors without trained values."""
    lacking = {kind: info[kind] for kind in _LACKING}
    if not any(lacking.values()):
        return
    if any(_outside(model, lacking).values()):
        raise ValueError(misfit(name, model, info, options))
    raise ValueError(
        f"{name} lacks trained values for the classifier of {type(model).__name__} ({describe_problems(lacking)}); "
        "random ones cannot teach. Weights to be trained further may have a new classifier: `new_head` in a recipe; a "
        "teacher whose embedding alone is read needs none: `embeddings_only`"
    )


def _check_outside(name: str, model: nn.Module, info: _Info, options: dict[str, Any]) -> None:
    """Refuses tensors without trained values that are not of the classifier."""
    outside = _outside(model, {kind: info[kind] for kind in _LACKING})
    if any(outside.values()):
        raise ValueError(misfit(name, model, {**info, **outside}, options))


def _outside(model: nn.Module, problems: _Info) -> dict[str, list[Any]]:
    """Those of the problems that are not of the classifier."""
    try:
        head = find_classifier(model)
        own = next(f"{name}." for name, module in model.named_modules() if module is head)
    except ValueError:
        # It cannot have a new one either.
        return {kind: list(entries) for kind, entries in problems.items()}
    return {
        kind: [entry for entry in entries if not tensor_name(entry).startswith(own)]
        for kind, entries in problems.items()
    }
