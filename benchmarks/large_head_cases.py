"""What the benchmarks of large heads compare: losses of logits that are held, and the same in chunks of classes."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from headshare_hf.losses import chunked_cross_entropy, chunked_kd, moments_kd, teacher_moments
from headshare_hf.losses.class_matrix import ClassMatrix
from headshare_hf.losses.sampled_classes import sample_classes
from headshare_hf.models.heads import create_head


SIZE, TEMPERATURE, SCALE, MARGIN = 512, 4.0, 64.0, 0.5
DENSE, ONLINE, MOMENTS, CHUNKS = "logits held", "one pass over chunks", "teacher as its moments", "chunks"
# Partial FC; the loss is another one.
RATE = 0.1
SAMPLED = f"chunks, {RATE:g} of the classes drawn"

Values = dict[str, torch.Tensor]


class Setting:
    """Class rows, and embeddings of a teacher and of a student that are near them."""

    def __init__(self, classes: int, batch: int, device: str) -> None:
        torch.manual_seed(0)
        self.labels = torch.randint(classes, (batch,)).to(device)
        self.rows = F.normalize(torch.randn(classes, SIZE)).mul_(8.0).to(device)
        near = self.rows[self.labels] + 2 * torch.randn(batch, SIZE).to(device)
        self.teacher = 8 * F.normalize(near)
        self.student = 8 * F.normalize(self.teacher + 6 * torch.randn(batch, SIZE).to(device) / SIZE**0.5)

    def double(self) -> "Setting":
        """The same in float64."""
        self.rows, self.teacher, self.student = self.rows.double(), self.teacher.double(), self.student.double()
        return self

    def head(self, kind: str) -> nn.Module:
        """A head with these rows."""
        with torch.device("meta"):
            head = create_head(kind, SIZE, len(self.rows), SCALE, MARGIN if kind == "arcface" else None)
        head.weight = nn.Parameter(self.rows)
        if kind == "linear":
            head.bias = None
        return head


def held_kl(setting: Setting) -> Callable[[torch.Tensor], torch.Tensor]:
    """The divergence as it is usually written."""

    def loss(student: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            teacher_logits = setting.teacher @ setting.rows.t()
        student_logits = student @ setting.rows.t()
        log_p = F.log_softmax(student_logits / TEMPERATURE, dim=1)
        return F.kl_div(log_p, F.softmax(teacher_logits / TEMPERATURE, dim=1), reduction="batchmean") * TEMPERATURE**2

    return loss


def held_arcface(
    setting: Setting, centers: nn.Parameter, drawn: torch.Tensor | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """ArcFace as it is usually written, with the derivative of its values, of all classes or of sorted numbers of some."""
    labels = setting.labels if drawn is None else torch.searchsorted(drawn, setting.labels)
    columns = labels.unsqueeze(1)

    def loss(student: torch.Tensor) -> torch.Tensor:
        rows = centers if drawn is None else centers[drawn]
        cosines = F.linear(F.normalize(student), F.normalize(rows))
        target = cosines.gather(1, columns).clamp(-1 + 1e-7, 1 - 1e-7)
        cosines = cosines.scatter(1, columns, (target.arccos() + MARGIN).cos())
        return F.cross_entropy(cosines * SCALE, labels)

    return loss


def step(setting: Setting, loss: Callable[[torch.Tensor], torch.Tensor], centers: nn.Parameter | None) -> Values:
    """Forward and backward; the loss and the gradients, which are held nowhere else."""
    student = setting.student.clone().requires_grad_()
    value = loss(student)
    value.backward()
    found = {"loss": value.detach(), "gradient of the embeddings": student.grad}
    if centers is not None:
        found["gradient of the centers"], centers.grad = centers.grad, None
    return found


def kl_cases(setting: Setting) -> dict[str, Callable[[], Values]]:
    head, teacher = setting.head("linear").requires_grad_(False), setting.teacher
    moments = teacher_moments(teacher, head, TEMPERATURE)
    losses = {
        DENSE: held_kl(setting),
        ONLINE: lambda student: chunked_kd(student, head, teacher, head, TEMPERATURE),
        MOMENTS: lambda student: moments_kd(student, head, moments, TEMPERATURE),
    }
    return {name: lambda loss=loss: step(setting, loss, None) for name, loss in losses.items()}


def arcface_cases(setting: Setting) -> dict[str, Callable[[], Values]]:
    head = setting.head("arcface")
    losses = {
        DENSE: held_arcface(setting, head.weight),
        CHUNKS: lambda student: chunked_cross_entropy(student, setting.labels, head),
        SAMPLED: lambda student: chunked_cross_entropy(student, setting.labels, head, sample_rate=RATE),
    }
    return {name: lambda loss=loss: step(setting, loss, head.weight) for name, loss in losses.items()}


def exact(name: str, case: str, setting: Setting) -> Values:
    """What a case should give, by logits that are held. In float64, the setting is to be too."""
    if case != SAMPLED:
        return CASES[name](setting)[DENSE]()
    head = setting.head("arcface")
    drawn = sample_classes(ClassMatrix.of(head), setting.labels, RATE, seed=0, step=0)[0].chosen
    # On an accelerator numbers follow that are no class.
    return step(setting, held_arcface(setting, head.weight, drawn[drawn < len(setting.rows)]), head.weight)


CASES = {"kl": kl_cases, "arcface": arcface_cases}
