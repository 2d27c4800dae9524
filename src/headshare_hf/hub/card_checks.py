"""The check that nothing which a model card has to say is missing or contradicts the rest."""

import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from huggingface_hub.utils import validate_repo_id

from ..losses import LossWeights
from ..models.thresholds import check_thresholds
from .card_fields import CardFields, CardMethod, CardModel, CardResult
from .card_verification import check_verification


def check_fields(card: CardFields) -> None:
    """
    Raises:
        ValueError: A field is missing, empty, no single line, out of range, or contradicts another. It is named.
    """
    check_present(card)
    if card.results is None or not (card.results or card.verification):
        raise ValueError(f"`results` is {card.results!r}; a model card needs it")
    _check_model(card.model)
    _check_objective(card)
    for name, repo_id in _repo_ids(card).items():
        _check_repo_id(name, repo_id)
    check_license(card.license, card.license_name, card.license_link)
    _check_positive(card.training, "training", "epochs", "batch_size", "learning_rate", "wall_seconds")
    for index, result in enumerate(card.results):
        _check_result(result, f"results[{index}]")
    for name, value in (card.teacher.metrics if card.teacher else {}).items():
        _check_fraction(value, f"teacher.metrics[{name!r}]")
    if card.verification:
        check_verification(card.verification)
        if card.verification.thresholds:
            check_thresholds([dict(entry) for entry in card.verification.thresholds])
        check_commerce(card.license, card.dataset.license)


def is_non_commercial(license_text: str) -> bool:
    """Whether a license, in words or as the Hub spells it, speaks of non-commercial use."""
    return re.search(r"non-?\s?commercial|-nc\b", license_text.lower()) is not None


def check_commerce(weights_license: str, data_license: str, name: str = "license") -> None:
    """
    Raises:
        ValueError: The license of the data is non-commercial, and that of the weights is not.
    """
    if is_non_commercial(data_license) and not (weights_license == "other" or is_non_commercial(weights_license)):
        raise ValueError(
            f"`{name}` is {weights_license!r}, but the data are for non-commercial use ({data_license!r}); choose a "
            "non-commercial license of the weights, such as 'cc-by-nc-4.0'"
        )


def check_present(value: Any, name: str = "") -> None:
    """
    Raises:
        ValueError: A field of a card that is not optional is missing or empty, or no single line. It is named.
    """
    if is_dataclass(value) and not isinstance(value, LossWeights):
        for entry in fields(value):
            inner, inner_name = getattr(value, entry.name), f"{name}.{entry.name}".lstrip(".")
            if not (entry.metadata.get("optional") and (inner is None or inner in ({}, (), []))):
                check_present(inner, inner_name)
    elif value is None or (hasattr(value, "__len__") and len(value) == 0):
        raise ValueError(f"`{name}` is {value!r}; a model card needs it")
    elif isinstance(value, str):
        check_text(value, name)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            check_present(inner, f"{name}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            check_present(inner, f"{name}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"`{name}` is {value}; a model card needs a finite number")


def check_text(text: str, name: str) -> None:
    """
    Raises:
        ValueError: A text of a card is empty or no single line; names it.
    """
    if not text.strip():
        raise ValueError(f"`{name}` is {text!r}; a model card needs it")
    # Both would break the tables of the card.
    if "\n" in text or "|" in text:
        raise ValueError(f"`{name}` is {text!r}; it must be one line without '|'")


def _check_model(model: CardModel) -> None:
    _check_positive(model, "model", "embedding_size", "num_parameters", "num_labels")
    if len(model.image_size) != 2 or not all(edge > 0 for edge in model.image_size):
        raise ValueError(f"`model.image_size` is {model.image_size}; it must be (height, width) in pixels")
    if model.head is not None:
        _check_positive(model.head, "model.head", "scale")
    if model.channel_order not in ("rgb", "bgr"):
        raise ValueError(f"`model.channel_order` is {model.channel_order!r}; allowed: 'rgb', 'bgr'")
    if len(model.image_mean) != len(model.image_std):
        raise ValueError(
            f"`model.image_mean` has {len(model.image_mean)} channels and `model.image_std` {len(model.image_std)}"
        )


def _check_objective(card: CardFields) -> None:
    weights, options = card.method.weights, card.method.options
    if weights.companion and "companion" not in options:
        raise ValueError(
            f"method {card.method.name!r} has a companion loss of weight {weights.companion:g}; name it in "
            "`method.options['companion']`"
        )
    uses_teacher = weights.needs_teacher or "companion" in options or options.get("student_head", "own") != "own"
    if uses_teacher and card.teacher is None:
        raise ValueError(f"`teacher` is missing, but method {card.method.name!r} learns from one: {weights}")
    if not uses_teacher and card.teacher is not None:
        raise ValueError(f"`teacher` is given, but nothing of method {card.method.name!r} uses it: {weights}")
    check_softening(card.method)


def check_softening(method: CardMethod) -> None:
    """
    Raises:
        ValueError: What softens the outputs of a KL part is missing, or said twice.
    """
    softened, has_scale = method.weights.kd or method.weights.teacher_head, "kd_scale" in method.options
    if softened and not has_scale and method.temperature is None:
        raise ValueError("`method.temperature` is missing, but the objective has a softened KL")
    if has_scale and method.temperature is not None:
        raise ValueError("`method.temperature` has no effect beside the option `kd_scale`; leave it out")


def check_license(license_id: str, name: str | None, link: str | None, prefix: str = "") -> None:
    """
    Args:
        license_id (`str`): License of the weights.
        name (`str`, *optional*): What another license than the Hub knows is called.
        link (`str`, *optional*): Where it is.
        prefix (`str`, *optional*): Of the fields, where they are called otherwise than in [`CardFields`].

    Raises:
        ValueError: It is no identifier of the Hub, or the two are not there exactly when it is `"other"`.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license_id):
        raise ValueError(
            f"`{prefix}license` is {license_id!r}; expected an identifier of the Hub, such as 'apache-2.0'"
        )
    for field, value in (("license_name", name), ("license_link", link)):
        if (value is not None) != (license_id == "other"):
            needed = "is missing for" if value is None else "has no place beside"
            raise ValueError(
                f"`{prefix}{field}` {needed} license {license_id!r}; the two go with 'other' and nothing else"
            )


def _repo_ids(card: CardFields) -> dict[str, str]:
    names = {"model.repo_id": card.model.repo_id, "dataset.id": card.dataset.id}
    names.update({f"results[{i}].dataset_id": result.dataset_id for i, result in enumerate(card.results)})
    sets = card.verification.sets if card.verification else ()
    names.update({f"verification.sets[{i}].id": pairs.id for i, pairs in enumerate(sets)})
    return {**names, **({"base_model": card.base_model} if card.base_model else {})}


def _check_repo_id(name: str, repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except ValueError as error:
        raise ValueError(f"`{name}` is {repo_id!r}, which is no Hub id: {error}") from error


def _check_result(result: CardResult, name: str) -> None:
    _check_fraction(result.value, f"{name}.value")
    _check_positive(result, name, "num_images", "num_seeds")
    if result.num_seeds > 1 and result.standard_error is None:
        raise ValueError(f"`{name}.standard_error` is missing, but the value is a mean over {result.num_seeds} seeds")
    if result.num_seeds == 1 and result.standard_error is not None:
        raise ValueError(f"`{name}.standard_error` is {result.standard_error}, but one seed has none")


def _check_positive(facts: Any, prefix: str, *names: str) -> None:
    for name in names:
        if not getattr(facts, name) > 0:
            raise ValueError(f"`{prefix}.{name}` is {getattr(facts, name)}; it must be positive")


def _check_fraction(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` is {value}; expected a fraction in [0, 1], not per cent")
