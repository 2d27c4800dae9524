"""The part of a run's card that is about verification."""

import re
from typing import Any

import numpy as np
from torch import nn

from ..data import VerificationSet
from ..evaluation import Verifier
from ..evaluation.pair_bootstrap import LEVEL
from ..hub import CardDataset, CardHead, CardIntervals, CardPairs, CardVerification, is_pair_metric
from ..hub.card_fields import LOCAL_DATA
from ..models import CosineHead, find_classifier
from .recipe_sections import HELD_OUT


_FOLDS = 10


def describe_verification(
    model: Any, verifier: Verifier, dataset: CardDataset, results: dict[str, Any], subject: str, preparation: str
) -> CardVerification:
    """
    What a card says of embeddings that are compared.

    Args:
        model (`nn.Module`): The trained student.
        verifier ([`Verifier`]): Its pairs.
        dataset ([`CardDataset`]): The training images.
        results (`dict[str, Any]`): What [`run_or_reuse`] returned.
        subject (`str`): What is on the images, one of [`SUBJECTS`].
        preparation (`str`): How they were prepared.

    Raises:
        ValueError: The results have no number for a set.
    """
    classifier = find_classifier(model)
    total, own = _bytes(model), _bytes(classifier)
    return CardVerification(
        subject=subject,
        preparation=preparation,
        flip=verifier.flip,
        num_embedding_parameters=_parameters(model) - _parameters(classifier),
        embedding_bytes=total - own,
        total_bytes=total,
        sets=tuple(_pairs(pairs, dataset, results) for pairs in verifier.sets),
        thresholds=tuple(getattr(model.config, "verification_thresholds", None) or ()),
    )


def describe_head(model: Any) -> CardHead | None:
    """The classifier of a model as its card says it; `None` for a linear one."""
    classifier = find_classifier(model)
    if not isinstance(classifier, CosineHead):
        return None
    margin = model.config.head_margin
    parts = () if margin is None else tuple(margin) if isinstance(margin, list) else (margin,)
    return CardHead(model.config.head_type, classifier.scale, parts)


def slug(text: str) -> str:
    """A name in which only letters, digits and hyphens are left, for the second half of a Hub id."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-") or "images"


def _pairs(pairs: VerificationSet, dataset: CardDataset, results: dict[str, Any]) -> CardPairs:
    prefix = f"eval_{pairs.name}_"
    own = {key.removeprefix(prefix): value for key, value in results.items() if key.startswith(prefix)}
    values = {name: value for name, value in own.items() if is_pair_metric(name)}
    if not values:
        raise ValueError(
            f"the results have no number for the verification set {pairs.name!r}: the run was finished without it. Choose "
            "another output_dir, or leave the set out"
        )
    held_out = pairs.name == HELD_OUT
    return CardPairs(
        name=f"{dataset.name}: classes held out" if held_out else pairs.name,
        id=dataset.id if held_out else f"{LOCAL_DATA}{slug(pairs.name)}",
        num_genuine=int(pairs.is_same.sum()),
        num_impostor=int((~pairs.is_same).sum()),
        num_folds=_FOLDS if pairs.folds is None else len(np.unique(pairs.folds)),
        values=values,
        accuracy_standard_error=own.get("accuracy_standard_error"),
        intervals=_intervals(own, values),
    )


def _intervals(own: dict[str, float], values: dict[str, float]) -> CardIntervals | None:
    ends = {name: (own[f"{name}/low"], own[f"{name}/high"]) for name in values if f"{name}/low" in own}
    return CardIntervals(ends, LEVEL, int(own["replicates"]), "pairs") if ends else None


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
