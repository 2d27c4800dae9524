"""One training step on batches that are ready: that of the trainer, and that of a plain loop."""

import copy
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn import functional as F
from torch.utils.data import Dataset

from headshare_hf import DistillationConfig, DistillationTrainer, HeadShareConfig, HeadShareForImageClassification
from headshare_hf.trainer.teacher import FrozenTeacher, TeacherOutput


LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, TEMPERATURE = 0.05, 0.9, 5e-4, 4.0
# As little as the trainer can be asked to do beside its steps, and the arithmetic of a plain loop.
PLAIN = {
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
    "logging_strategy": "no",
    "lr_scheduler_type": "constant",
    "learning_rate": LEARNING_RATE,
    "weight_decay": WEIGHT_DECAY,
    "channels_last": False,
    "fold_teacher": False,
}


def network(backbone: str, num_labels: int, seed: int = 0, **fields: Any) -> HeadShareForImageClassification:
    """A network of this package with seeded random weights."""
    torch.manual_seed(seed)
    return HeadShareForImageClassification(HeadShareConfig(backbone=backbone, num_labels=num_labels, **fields))


@torch.no_grad()
def settle(model: nn.Module, size: int, passes: int = 4) -> nn.Module:
    """Gives the batch normalizations of an untrained network the statistics of noise, as a trained one has some."""
    model.train()
    for _ in range(passes):
        model(torch.randn(64, 3, size, size))
    return model.eval()


def make_batches(
    count: int, batch_size: int, num_labels: int, size: int, device: str
) -> list[dict[str, torch.Tensor]]:
    """Images that are the pattern of their class under noise; `index` counts them through all batches."""
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randn(min(num_labels, 1000), 3, size, size, generator=generator)
    batches = []
    for number in range(count):
        labels = torch.randint(0, num_labels, (batch_size,), generator=generator)
        noise = torch.randn(batch_size, 3, size, size, generator=generator)
        index = torch.arange(number * batch_size, (number + 1) * batch_size)
        images = 0.7 * patterns[labels % len(patterns)] + 0.7 * noise
        batch = {"pixel_values": images, "labels": labels, "index": index}
        batches.append({name: value.to(device) for name, value in batch.items()})
    return batches


class Batches(Dataset):
    """Batches in memory, image by image."""

    def __init__(self, batches: Sequence[dict[str, torch.Tensor]]) -> None:
        self._columns = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        self.labels = self._columns["labels"].cpu()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, rows: list[int]) -> dict[str, torch.Tensor]:
        """A whole batch at once."""
        return {name: values[rows] for name, values in self._columns.items()}

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: values[row] for name, values in self._columns.items()}


class StoredTeacher(FrozenTeacher):
    """A teacher whose embeddings were computed before: the row of each image is read, and the head applied to it."""

    def store(self, batches: Sequence[dict[str, torch.Tensor]]) -> None:
        """Computes the embeddings of all batches."""
        computed = [super(StoredTeacher, self).__call__(batch["pixel_values"]) for batch in batches]
        self._embeddings = torch.cat([output.embeddings.float() for output in computed]).clone()

    def __call__(self, pixel_values: torch.Tensor, batch: Any = None) -> TeacherOutput:
        embeddings = self._embeddings[batch["index"]]
        with torch.inference_mode():
            return TeacherOutput(self.head(embeddings), embeddings)


class TrainerStep:
    """
    The training step of [`DistillationTrainer`]: its loss, its backward pass, its optimizer.

    Args:
        student (`nn.Module`): Is copied.
        teacher (`nn.Module`): Is copied.
        batches (`list`): Of [`make_batches`].
        stored (`bool`, *optional*, defaults to `False`): Whether the teacher's embeddings are given.
        images (`Dataset`, *optional*): The training set. Default: the images of the batches.
        fields: Of [`DistillationConfig`].
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        batches: list,
        stored: bool = False,
        images: Dataset | None = None,
        **fields: Any,
    ) -> None:
        self.batches = batches
        self._folder = tempfile.TemporaryDirectory()
        use_cpu = batches[0]["labels"].device.type == "cpu"
        args = DistillationConfig(output_dir=self._folder.name, use_cpu=use_cpu, **{**PLAIN, **fields})
        self.trainer = DistillationTrainer(
            copy.deepcopy(student), args, teacher=copy.deepcopy(teacher), train_dataset=images or Batches(batches)
        )
        if stored:
            self.trainer.teacher.__class__ = StoredTeacher
            self.trainer.teacher.store(batches)
        self.trainer.create_optimizer()
        self.model, self.optimizer = self.trainer.accelerator.prepare(self.trainer.model, self.trainer.optimizer)
        self.trainer.optimizer = self.optimizer
        if isinstance(self.model, OptimizedModule) != args.torch_compile:
            raise RuntimeError(
                f"asked for torch_compile={args.torch_compile}, and got the opposite: time no such step"
            )
        # What the loop of transformers sets before its first step.
        self.trainer.current_gradient_accumulation_steps = 1

    def step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Loss before the step, on the device."""
        loss = self.trainer.training_step(self.model, batch)
        self.optimizer.step()
        self.model.zero_grad()
        return loss

    def run(self, count: int) -> None:
        """The first batches, one step each."""
        for batch in self.batches[:count]:
            self.step(batch)

    def losses(self, count: int) -> list[float]:
        """Likewise, with the loss of each."""
        return [float(self.step(batch)) for batch in self.batches[:count]]


class PlainStep(TrainerStep):
    """
    TH-KD as a loop that somebody would write: no trainer, no switches, the loss read at every step.

    Args:
        student (`nn.Module`): Is copied.
        teacher (`nn.Module`): Is copied.
        batches (`list`): Of [`make_batches`].
        weights ([`Method`]): Of the parts.
        more (`nn.Module`): What is trained beside the student.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, batches: list, weights: Any, *more: nn.Module) -> None:
        self.batches, self.weights = batches, weights
        device = batches[0]["labels"].device
        self.model = copy.deepcopy(student).to(device).train()
        self.teacher = copy.deepcopy(teacher).to(device).eval().requires_grad_(False)
        self.optimizer = torch.optim.SGD(
            nn.ModuleList([self.model, *more]).parameters(),
            lr=LEARNING_RATE,
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
        )

    def step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """See [`TrainerStep`]."""
        output = self.model(batch["pixel_values"])
        with torch.no_grad():
            seen = self.teacher(batch["pixel_values"])
        loss = self.weights.ce * F.cross_entropy(output.logits, batch["labels"])
        loss = loss + self.distance(output, seen, batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return torch.tensor(loss.item())

    def distance(self, output: Any, seen: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """What is added to the cross-entropy, of the student's output and the teacher's."""
        target = seen.logits.div(TEMPERATURE).softmax(dim=1)
        own = self._divergence(output.logits, target)
        through_teacher = self._divergence(self.teacher.classifier(output.embeddings), target)
        return self.weights.kd * own + self.weights.teacher_head * through_teacher

    @staticmethod
    def _divergence(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        log_probabilities = logits.div(TEMPERATURE).log_softmax(dim=1)
        return F.kl_div(log_probabilities, target, reduction="batchmean") * TEMPERATURE**2
