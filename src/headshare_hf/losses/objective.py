"""The sum of the loss parts, each computed only where its weight asks for it."""

from dataclasses import asdict, dataclass, field
from typing import TypeVar

import torch
from torch import nn

from ..models import CosineHead
from .embedding import DISTANCES, embedding_loss
from .scores import Scores


_T = TypeVar("_T")


@dataclass(frozen=True)
class LossWeights:
    """
    Weight of every part of the objective; a part of weight 0 is not computed.

    Attributes:
        ce (`float`): Cross-entropy of the student's own head.
        kd (`float`): Softened KL of the student's own head.
        teacher_head (`float`): Softened KL of the teacher's head on the student's embedding.
        teacher_head_ce (`float`): Cross-entropy of the teacher's head on the student's embedding.
        embedding (`float`): Squared distance of the embeddings.
        contrastive (`float`): Contrastive loss (CRD) of the embeddings, see [`ContrastiveLoss`].
        companion (`float`): The [`CompanionLoss`] of the run.

    Raises:
        ValueError: A weight is negative or not finite, or all are 0.
    """

    ce: float = 0.0
    kd: float = 0.0
    teacher_head: float = 0.0
    teacher_head_ce: float = 0.0
    embedding: float = 0.0
    contrastive: float = 0.0
    companion: float = 0.0

    def __post_init__(self) -> None:
        for name, weight in asdict(self).items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"the weight of `{name}` is {weight}; it must be finite and not negative")
        if not any(asdict(self).values()):
            raise ValueError("all loss weights are 0; nothing would be trained")

    @classmethod
    def coupled(
        cls,
        ce: float,
        kd: float,
        alpha_th: float,
        embedding: float = 0.0,
        contrastive: float = 0.0,
        companion: float = 0.0,
    ) -> "LossWeights":
        """
        Equations (1) and (2) of arXiv 2201.06945: both heads share the mass of each term, `alpha_th` going to the
        teacher's.

        Raises:
            ValueError: `alpha_th` is outside [0, 1].
        """
        if not 0 <= alpha_th <= 1:
            raise ValueError(f"`alpha_th` is {alpha_th}; it must be in [0, 1]")
        own = 1 - alpha_th
        return cls(own * ce, own * kd, alpha_th * kd, alpha_th * ce, embedding, contrastive, companion)

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher is needed at all."""
        return self.needs_teacher_forward or self.needs_teacher_head

    @property
    def needs_teacher_head(self) -> bool:
        """Whether the student's embedding goes through the teacher's classifier."""
        return self.teacher_head > 0 or self.teacher_head_ce > 0

    @property
    def needs_teacher_forward(self) -> bool:
        """Whether the teacher has to see the images; its head alone is enough for `teacher_head_ce`."""
        return self.kd > 0 or self.teacher_head > 0 or self.companion > 0 or self.needs_teacher_embedding

    @property
    def needs_teacher_embedding(self) -> bool:
        """Whether the teacher's embedding itself is compared, and not only what its classifier makes of it."""
        return self.embedding > 0 or self.contrastive > 0

    @property
    def trains_own_head(self) -> bool:
        """Whether any part reaches the student's own head."""
        return self.ce > 0 or self.kd > 0


@dataclass
class ObjectiveInputs:
    """
    What the parts are computed from; entries that no part needs stay `None`.

    Attributes:
        labels (`torch.Tensor` of shape `(batch_size,)`): Class numbers.
        own ([`Scores`]): Of the student's own head.
        teacher ([`Scores`]): Of the teacher.
        teacher_head ([`Scores`]): Of the teacher's head on the student's embedding.
        embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`):
            The student's embedding as the teacher's head reads it, after a projector if there is one.
        teacher_embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): The teacher's embedding.
        auxiliary (`dict[str, torch.Tensor]`):
            Values of shape `()` of the parts that have parameters of their own, by the name of their weight.
        companion_share (`float`): Of the weight of the companion, in [0, 1]; less than 1 while it is warmed up.
    """

    labels: torch.Tensor
    own: Scores | None = None
    teacher: Scores | None = None
    teacher_head: Scores | None = None
    embeddings: torch.Tensor | None = None
    teacher_embeddings: torch.Tensor | None = None
    auxiliary: dict[str, torch.Tensor] = field(default_factory=dict)
    companion_share: float = 1.0


class DistillationObjective:
    """
    Weighted sum of the parts. Cross-entropies are taken with the margin of their head, KL terms without.

    Args:
        weights ([`LossWeights`]): Weight of each part.
        temperature (`float`, *optional*, defaults to `4.0`): T of both KL terms, unitless.
        kd_scale (`float`, *optional*):
            Both KL terms compare softmax(kd_scale · cos): the temperature of a cosine head of scale s is then
            s / kd_scale, in place of `temperature`.
        embedding_distance (`str`, *optional*, defaults to `"cosine"`): See [`embedding_loss`].

    Raises:
        ValueError: `temperature` or `kd_scale` is not positive, or there is no such distance.
    """

    def __init__(
        self,
        weights: LossWeights,
        temperature: float = 4.0,
        kd_scale: float | None = None,
        embedding_distance: str = "cosine",
    ) -> None:
        for name, value in (("temperature", temperature), ("kd_scale", kd_scale)):
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` is {value}; it must be positive")
        if embedding_distance not in DISTANCES:
            raise ValueError(f"`embedding_distance` is {embedding_distance!r}; allowed: {', '.join(DISTANCES)}")
        self.weights = weights
        self.temperature = temperature
        self.kd_scale = kd_scale
        self.embedding_distance = embedding_distance

    def __call__(self, inputs: ObjectiveInputs) -> dict[str, torch.Tensor]:
        """
        Returns:
            `dict[str, torch.Tensor]`: `"loss"`, the weighted sum, and every computed part by the name of its weight,
            without the weight and without gradient. All of shape `()`.
        """
        parts = self._parts(inputs)
        weights = asdict(self.weights) | {"companion": inputs.companion_share * self.weights.companion}
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return {"loss": total, **{name: part.detach() for name, part in parts.items()}}

    def _parts(self, inputs: ObjectiveInputs) -> dict[str, torch.Tensor]:
        weights, parts = self.weights, {}
        if weights.ce:
            parts["ce"] = _given(inputs.own).cross_entropy(inputs.labels)
        if weights.kd:
            parts["kd"] = self._divergence(_given(inputs.own), inputs.teacher)
        if weights.teacher_head:
            parts["teacher_head"] = self._divergence(_given(inputs.teacher_head), inputs.teacher)
        if weights.teacher_head_ce:
            parts["teacher_head_ce"] = _given(inputs.teacher_head).cross_entropy(inputs.labels)
        if weights.embedding:
            parts["embedding"] = embedding_loss(
                _given(inputs.embeddings), _given(inputs.teacher_embeddings), self.embedding_distance
            )
        for name in ("contrastive", "companion"):
            if getattr(weights, name):
                parts[name] = _given(inputs.auxiliary.get(name))
        return parts

    def _divergence(self, student: Scores, teacher: Scores | None) -> torch.Tensor:
        teacher = _given(teacher)
        return student.divergence(teacher, self.temperature_of(student.head), self.temperature_of(teacher.head))

    def temperature_of(self, head: nn.Module | None) -> float:
        """
        T of the scores of a head, unitless.

        Raises:
            ValueError: `kd_scale` is set and it is no cosine head.
        """
        if self.kd_scale is None:
            return self.temperature
        if not isinstance(head, CosineHead):
            raise ValueError(f"`kd_scale` needs cosine heads, not {type(head).__name__}; use `temperature`")
        return head.scale / self.kd_scale


def _given(value: _T | None) -> _T:
    if value is None:
        raise ValueError("a loss part with a positive weight was not given the scores or embeddings that it needs")
    return value
