"""Every companion loss, small, with something to compute it from."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from headshare_hf.losses import COMPANIONS, CompanionLoss, Features


# Channels and edge of the maps of stem and stages, the last of which is pooled into the embedding.
MAPS = ((3, 6), (4, 6), (5, 3))
NUM_LABELS = 7


@dataclass
class Case:
    """A loss and what it is computed from."""

    loss: CompanionLoss
    student: Features
    teacher: Features
    labels: torch.Tensor

    def value(self, **changes: Features) -> torch.Tensor:
        """The loss, with another student or teacher where one is given."""
        used = {"student": self.student, "teacher": self.teacher, **changes}
        return self.loss(used["student"], used["teacher"], self.labels)


def draw_features(batch_size: int, seed: int, dtype: torch.dtype = torch.float32, maps=MAPS) -> Features:
    """Maps on both sides of a ReLU, the embedding and the logits that follow from them, and the classifier between."""
    generator = torch.Generator().manual_seed(seed)
    before = tuple(
        torch.randn(batch_size, channels, edge, edge, generator=generator, dtype=dtype) for channels, edge in maps
    )
    after = tuple(each.relu() for each in before)
    weight = torch.randn(NUM_LABELS, maps[-1][0], generator=generator, dtype=dtype)
    embeddings = after[-1].mean(dim=(2, 3))
    return Features(after, before, embeddings, embeddings @ weight.t(), lambda given: given @ weight.t(), after[-1])


def draw_case(
    name: str, batch_size: int = 4, dtype: torch.dtype = torch.float32, teacher_maps=MAPS, **options
) -> Case:
    """The companion called `name`, ready for the training proper."""
    student = draw_features(batch_size, 1, dtype)
    teacher = draw_features(batch_size, 2, dtype, teacher_maps)
    torch.manual_seed(0)
    loss = COMPANIONS[name].loss(student.shapes(), teacher.shapes(), **options).to(dtype)
    if name == "factor":
        loss.finish_pretraining()
    return Case(loss, student, teacher, torch.arange(batch_size) % NUM_LABELS)


def leaves(case: Case) -> list[torch.Tensor]:
    """The tensors of the student that the loss reads, now as leaves of the graph."""
    fields = {field: getattr(case.student, field) for field in case.loss.student_needs}
    fields = {field: as_leaves(value) for field, value in fields.items()}
    case.student = Features(**fields)
    return [each for value in fields.values() for each in (value if isinstance(value, tuple) else (value,))]


def as_leaves(value):
    """A tensor, or a tuple of them, as leaves of the graph."""
    if isinstance(value, tuple):
        return tuple(as_leaves(each) for each in value)
    return value.detach().clone().requires_grad_()


def mapped(features: Features, change) -> Features:
    """`change` of every tensor of `features`."""
    fields = {
        name: tuple(change(each) for each in value) if isinstance(value, tuple) else change(value)
        for name, value in vars(features).items()
        if value is not None and name != "head"
    }
    return replace(features, **fields)


def frozen_head(in_features: int, num_labels: int = NUM_LABELS) -> nn.Linear:
    """A classifier that does not learn."""
    return nn.Linear(in_features, num_labels).requires_grad_(False)
