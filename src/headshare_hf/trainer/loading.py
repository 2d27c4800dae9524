"""Trained classifiers, students and teachers, from the Hub, its cache, or a folder."""

from typing import Any

from torch import nn
from transformers import AutoImageProcessor, AutoModelForImageClassification

from ..hub.revisions import split_revision
from ..models.damaged_files import damage_named
from ..models.hub_cache import INDEX_FILE, PROCESSOR_FILE, WEIGHTS_FILE, cached_commit, explained


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
    options = {"output_loading_info": True, "ignore_mismatched_sizes": True, "revision": revision, **kwargs}
    with damage_named(name_or_path, options), explained(name_or_path, options, WEIGHTS_FILE, INDEX_FILE):
        model, info = AutoModelForImageClassification.from_pretrained(name_or_path, **options)
    broken = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if broken:
        raise ValueError(f"{name_or_path} lacks trained values for {broken}; random ones cannot teach")
    if revision is not None:
        # So that cards can say which one it was. This name is not saved with the model.
        model.config._name_or_path = f"{name_or_path}@{revision}"
    return model


def load_teacher(name_or_path: str, revision: str | None = None, **kwargs: Any) -> tuple[nn.Module, Any]:
    """
    A teacher and its image processor, from the Hub or a folder. Both are of one commit.

    Args:
        name_or_path, revision, kwargs: As [`load_classifier`] takes them.

    Returns:
        `tuple[nn.Module, Any]`: The model, and the processor.

    Raises:
        OSError, ValueError: As [`load_classifier`].
    """
    model = load_classifier(name_or_path, revision, **kwargs)
    name, revision = split_revision(name_or_path, revision)
    options = {**kwargs, "revision": cached_commit(name, {"revision": revision, **kwargs}) or revision}
    with explained(name, options, PROCESSOR_FILE):
        return model, AutoImageProcessor.from_pretrained(name, **options)
