"""What a model card has to say of embeddings that are compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


# Marks the fields of a card that may be left empty; every other one is required.
OPTIONAL = {"optional": True}


@dataclass(frozen=True)
class CardIntervals:
    """
    How sure the values of a set of pairs are, by the bootstrap; what another training would give is another question.

    Attributes:
        ends (`Mapping[str, tuple[float, float]]`): Lower and upper end, fractions, by some of the names of the values.
        level (`float`): Share of the replicates inside, e.g. 0.95.
        num_samples (`int`): Number of replicates.
        over (`str`): What was drawn: `"pairs"`, `"people"`, `"templates"`.
    """

    ends: Mapping[str, tuple[float, float]]
    level: float
    num_samples: int
    over: str


@dataclass(frozen=True)
class CardPairs:
    """
    A set of pairs of images, and what one training run reached on it.

    Attributes:
        name (`str`): For people, e.g. `"lfw"`.
        id (`str`): As `CardDataset.id`.
        num_genuine (`int`): Pairs that show the same.
        num_impostor (`int`): Pairs that do not.
        num_folds (`int`): Folds of the accuracy.
        values (`Mapping[str, float]`): Fractions in [0, 1] by the names of [`verification_metrics`] without that of the
            set: `accuracy`, `auc`, `eer` and `tar@far=.../...`.
        accuracy_standard_error (`float`, *optional*): Of the mean over the folds, a fraction.
        intervals ([`CardIntervals`], *optional*): Of some of the values.
    """

    name: str
    id: str
    num_genuine: int
    num_impostor: int
    num_folds: int
    values: Mapping[str, float]
    accuracy_standard_error: float | None = field(default=None, metadata=OPTIONAL)
    intervals: CardIntervals | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class CardVerification:
    """
    What the card of a network says whose embeddings are compared.

    Attributes:
        subject (`str`): What is on the images, one of [`SUBJECTS`].
        preparation (`str`): How the images were prepared, e.g. `"aligned by five points to 112 x 112 pixels"`.
        flip (`bool`): Whether the embeddings of the mirrored images were added, in all results.
        num_embedding_parameters (`int`): Of the network without its classifier.
        embedding_bytes (`int`): Size of its weights.
        total_bytes (`int`): Size of all weights, those of the classifier included.
        sets (`tuple[CardPairs, ...]`): At least one.
        thresholds (`tuple[Mapping, ...]`): `HeadShareConfig.verification_thresholds`; may be empty.
    """

    subject: str
    preparation: str
    flip: bool
    num_embedding_parameters: int
    embedding_bytes: int
    total_bytes: int
    sets: tuple[CardPairs, ...]
    thresholds: tuple[Mapping[str, Any], ...] = field(default=(), metadata=OPTIONAL)
