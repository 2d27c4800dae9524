"""Whether two images show the same, by a threshold that is stored with the model."""

from dataclasses import dataclass
from typing import Any

from demo_images import Picture


@dataclass(frozen=True)
class Comparison:
    """
    Attributes:
        similarity (`float`): Cosine of the embeddings.
        entry (`dict`, *optional*): The stored threshold that decides; `None` where none is stored.
        flip (`bool`): Whether the embedding of the mirrored image was added.
    """

    similarity: float
    entry: dict[str, Any] | None
    flip: bool

    @property
    def is_same(self) -> bool | None:
        return None if self.entry is None else self.similarity >= self.entry["similarity"]


def stored_thresholds(verifier: Any) -> list[dict[str, Any]]:
    """The thresholds that are stored with a model, the strictest FAR first."""
    return sorted(verifier.model.config.verification_thresholds or [], key=lambda entry: entry["far"])


def threshold_choices(verifier: Any) -> list[tuple[str, float]]:
    """For every stored threshold, what people read and its FAR."""
    return [(describe_threshold(entry), entry["far"]) for entry in stored_thresholds(verifier)]


def describe_threshold(entry: dict[str, Any]) -> str:
    """One line on a stored threshold: where it was measured, and on how many pairs."""
    return (
        f"FAR {entry['far']:g}: similarity from {entry['similarity']:.4f} "
        f"({entry['set']}, {entry['num_impostor']:,} impostor pairs, rule {entry['rule']})"
    )


def compare(verifier: Any, first: Picture, second: Picture, far: float | None) -> Comparison:
    """
    Args:
        verifier (`Any`): Of [`load_verifier`].
        first, second ([`Picture`]): The two images.
        far (`float`, *optional*): Which of the stored thresholds decides; by default the strictest. The choice may
            be that of a model shown before, and one that this model lacks is the default then.
    """
    stored = stored_thresholds(verifier)
    entry = next((entry for entry in stored if entry["far"] == far), stored[0] if stored else None)
    # Without a stored threshold the pipeline decides by none of its own; here its decision is not looked at.
    choice = {"threshold": 1.0, "flip": False} if entry is None else {"far": entry["far"]}
    answer = verifier(first.image, second.image, **choice)
    return Comparison(answer["similarity"], entry, entry is not None and entry["flip"])
