"""What every companion loss has in common: what it needs, and the precision that it computes in."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import nn

from .features import Features, FeatureShapes, NeededFeatures


_MAPS = ("hidden_states", "pre_activations")
_KINDS = {
    "hidden_states": "feature maps",
    "pre_activations": "feature maps before their activation",
    "final_map": "a feature map whose mean is the embedding",
    "embeddings": "embeddings",
    "logits": "logits",
    "head": "a classifier that can be shared",
}
_REMEDIES = {
    "hidden_states": "take a backbone with stages (resnet8x4, wrn_16_2, ...) or a loss on embeddings or logits",
    "pre_activations": "take one of this package's own backbones or a loss on hidden states, embeddings or logits",
    "final_map": "take a network with global average pooling (resnet, wrn, vgg, ...)",
    "embeddings": "take a network whose classifier is one linear layer, or a loss on logits",
    "logits": "take a network with a classifier",
    "head": "take a teacher whose classifier is one linear layer, or a loss that does not share it",
}


class CompanionLoss(nn.Module):
    """
    A distillation loss that can be added to any method of this package, and to head sharing in particular.

    The parameters of a companion (regressors, projectors) learn beside the student and stay out of the published
    weights. Every companion is a mean over the batch, so that its weight does not depend on the batch size; where the
    published code sums or scales otherwise the subclass says which factor translates its weight. Everything is computed
    in float32 whatever the autocast, and no gradient reaches the teacher.

    A subclass sets the class attributes and implements `compute`.

    Args:
        student ([`FeatureShapes`]): Of one forward pass of the student.
        teacher ([`FeatureShapes`]): Of one of the teacher, on the same images.

    Attributes:
        student_needs (`tuple[str, ...]`): The fields of the student's [`Features`] that are read.
        teacher_needs (`tuple[str, ...]`): Those of the teacher.
        needs_labels (`bool`): Whether the labels are read.
        makes_centers (`bool`): Whether it makes a center of every class, with which a student can predict whose own
            classifier nothing trains.

    Raises:
        ValueError: A network has nothing of a kind that is needed, or maps that are not
            `(channels, height, width)`; a subclass adds what it cannot align.
    """

    student_needs: ClassVar[tuple[str, ...]] = ()
    teacher_needs: ClassVar[tuple[str, ...]] = ()
    needs_labels: ClassVar[bool] = False
    makes_centers: ClassVar[bool] = False

    def __init__(self, student: FeatureShapes, teacher: FeatureShapes) -> None:
        super().__init__()
        _check_shapes(self, "student", student, self.student_needs)
        _check_shapes(self, "teacher", teacher, self.teacher_needs)

    def forward(self, student: Features, teacher: Features, labels: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            student ([`Features`]): What learns.
            teacher ([`Features`]): What teaches, of the same images.
            labels (`torch.Tensor` of `int64` and shape `(batch_size,)`, *optional*): Class numbers, -1 for none.

        Returns:
            `torch.Tensor` of shape `()`: A mean over the batch.

        Raises:
            ValueError: A needed field or the labels are missing.
        """
        learns = _read(self, "student", student, self.student_needs)
        teaches = _read(self, "teacher", teacher, self.teacher_needs, teaches=True)
        if self.needs_labels and labels is None:
            raise ValueError(f"{type(self).__name__} needs labels; give every image its class, or -1 for none")
        with torch.autocast(learns.device_type, enabled=False):
            return self.compute(learns, teaches, cast(torch.Tensor, labels))

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """[`forward`] of features in at least float32, the teacher's constant, and labels where `needs_labels`."""
        raise NotImplementedError(f"{type(self).__name__} does not implement compute")


class PretrainedCompanionLoss(CompanionLoss):
    """
    A [`CompanionLoss`] with a stage of training that comes before the student's own, with a loss of its own.

    In that stage `pretraining_loss` alone is minimised, over `pretraining_parameters()` and, where `pretrains_backbone`,
    over the student's backbone without its classifier. `finish_pretraining` ends it. Whether it has ended is in the
    state dict, so that a resumed run does not repeat it.

    Attributes:
        pretrains_backbone (`bool`): Whether the student's backbone learns too; if not, the student is not even run.
        follows_pretraining (`bool`):
            Whether the published method adds `forward` to the training that follows; if not, its weight there is 0.
    """

    pretrains_backbone: ClassVar[bool] = False
    follows_pretraining: ClassVar[bool] = False

    def __init__(self, student: FeatureShapes, teacher: FeatureShapes) -> None:
        super().__init__(student, teacher)
        self.pretrained = False

    def pretraining_loss(self, student: Features | None, teacher: Features) -> torch.Tensor:
        """
        Args:
            student ([`Features`], *optional*): What learns; not read unless `pretrains_backbone`.
            teacher ([`Features`]): What teaches.

        Returns:
            `torch.Tensor` of shape `()`: A mean over the batch.
        """
        needs = self.student_needs if self.pretrains_backbone else ()
        learns = _read(self, "student", student or Features(), needs)
        teaches = _read(self, "teacher", teacher, self.teacher_needs, teaches=True)
        with torch.autocast(teaches.device_type, enabled=False):
            return self.compute_pretraining(learns, teaches)

    def compute_pretraining(self, student: NeededFeatures, teacher: NeededFeatures) -> torch.Tensor:
        """[`pretraining_loss`] of features as in [`CompanionLoss.compute`]."""
        raise NotImplementedError(f"{type(self).__name__} does not implement compute_pretraining")

    def pretraining_parameters(self) -> Iterator[nn.Parameter]:
        """The companion's own parameters that learn in the first stage, and only there."""
        raise NotImplementedError(f"{type(self).__name__} does not implement pretraining_parameters")

    def finish_pretraining(self) -> None:
        """Ends the first stage: what was trained in it stays as it is."""
        self.pretrained = True
        for parameter in self.pretraining_parameters():
            parameter.requires_grad_(False)

    def get_extra_state(self) -> torch.Tensor:
        """Whether the first stage has ended."""
        return torch.tensor(self.pretrained)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Ends the first stage where it had ended."""
        if bool(state):
            self.finish_pretraining()


def _check_shapes(loss: CompanionLoss, side: str, shapes: FeatureShapes, needs: Sequence[str]) -> None:
    # A head has no shape of its own: it reads the embeddings and gives the logits.
    for field in (field for field in needs if field != "head"):
        found = getattr(shapes, field)
        if not found:
            raise ValueError(_missing(loss, side, field, "has none"))
        maps = found if field in _MAPS else (found,) if field == "final_map" else ()
        for shape in (shape for shape in maps if len(shape) != 3):
            raise ValueError(
                _missing(loss, side, field, f"returns hidden states of shape {shape}, no (channels, h, w)")
            )


def _missing(loss: CompanionLoss, side: str, field: str, what: str) -> str:
    return f"{type(loss).__name__} needs {_KINDS[field]} of the {side}, which {what}; {_REMEDIES[field]}"


def _read(
    loss: CompanionLoss, side: str, features: Features, needs: Sequence[str], teaches: bool = False
) -> NeededFeatures:
    found: dict[str, Any] = {}
    for field in needs:
        value = getattr(features, field)
        if value is None:
            raise ValueError(f"`{field}` of the {side} is missing, which {type(loss).__name__} needs")
        if field == "head":
            found[field] = value
        elif field in _MAPS:
            found[field] = tuple(_prepared(each, teaches) for each in value)
        else:
            found[field] = _prepared(value, teaches)
    return NeededFeatures(**found)


def _prepared(tensor: torch.Tensor, teaches: bool) -> torch.Tensor:
    tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    if not teaches:
        return tensor
    # What inference mode made cannot be part of a graph, not even as a constant.
    return tensor.clone() if tensor.is_inference() else tensor.detach()
