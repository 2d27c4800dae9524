"""Contrastive representation distillation (CRD), against memories of all training images."""

import math

import torch
from torch import distributed, nn
from torch.nn import functional as F

from .contrastive_side import side_loss, side_normalization
from .negatives import Contrast, NegativeSampler


class ContrastiveLoss(nn.Module):
    r"""
    The loss of "Contrastive Representation Distillation" (Tian, Krishnan and Isola, arXiv 1910.10699, section 3.1).

    Student and teacher each have a linear layer to a common unit sphere, and a memory of what it gave for every image of
    the training set. With x = exp(s · t / τ) / Z for the student's embedding s of an image and an entry t of the
    teacher's memory, the critic h = x / (x + N / M) says how likely the two are of the same image, for N negatives and M
    images; the loss is minus the objective of equation (18), log h for the image's own entry and log(1 - h) for the N
    negatives. The same is taken of the teacher's embedding and the student's memory, and both are added.

    The values are those of the authors' code, with its 1e-7 in the denominator and its constants Z: each is the mean of
    exp(s · t / τ) over the first batch times M, and stays. Where that code gathers (batch_size, N + 1, embedding_size)
    numbers of both memories, the scores of a pool of images are one product here, and N of them are picked for each.

    In training mode a call ends with an update: the memories of the images of the batch, of all processes, become the
    unit vector of `momentum` times the old entry and the rest of the new embedding.

    Args:
        student_size (`int`): Width of the student's embeddings.
        teacher_size (`int`): Width of the teacher's embeddings.
        labels (`torch.Tensor` of shape `(num_images,)`): Class of every image of the training set.
        num_negatives, negatives, seed: `num_negatives`, `kind` and `seed` of [`NegativeSampler`].
        embedding_size (`int`, *optional*, defaults to 128): Dimensions of the sphere.
        temperature (`float`, *optional*, defaults to 0.07): τ, unitless.
        momentum (`float`, *optional*, defaults to 0.5): Share of the old entry, in [0, 1).

    Raises:
        ValueError: `temperature` or `momentum` is out of its range, or as [`NegativeSampler`].
    """

    student_memory: torch.Tensor
    teacher_memory: torch.Tensor
    normalization: torch.Tensor

    def __init__(
        self,
        student_size: int,
        teacher_size: int,
        labels: torch.Tensor,
        *,
        num_negatives: int = 16384,
        negatives: str = "exact",
        seed: int = 0,
        embedding_size: int = 128,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"`temperature` is {temperature}; it must be positive")
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` is {momentum}; it must be in [0, 1)")
        self.temperature = temperature
        self.momentum = momentum
        self.negatives = NegativeSampler(labels, num_negatives, negatives, seed)
        self.student_embedding = nn.Linear(student_size, embedding_size)
        self.teacher_embedding = nn.Linear(teacher_size, embedding_size)
        bound = math.sqrt(3 / embedding_size)
        for name in ("student_memory", "teacher_memory"):
            self.register_buffer(name, torch.empty(len(labels), embedding_size).uniform_(-bound, bound))
        # Z of the student's side and of the teacher's; 0 until the first batch.
        self.register_buffer("normalization", torch.zeros(2))
        self._normalized = False
        self._step = 0

    def get_extra_state(self) -> torch.Tensor:
        """The number of batches so far, which the negatives of the next one are drawn from."""
        return torch.tensor(self._step)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Goes on after as many batches."""
        self._step = int(state)
        self._normalized = False

    def forward(
        self,
        student_embeddings: torch.Tensor,
        teacher_embeddings: torch.Tensor,
        index: torch.Tensor,
        contrast: Contrast | None = None,
    ) -> torch.Tensor:
        """
        Args:
            student_embeddings (`torch.Tensor` of shape `(batch_size, student_size)`): Embeddings that learn.
            teacher_embeddings (`torch.Tensor` of shape `(batch_size, teacher_size)`):
                Embeddings that teach. No gradient reaches them, but one reaches the layer that reads them.
            index (`torch.Tensor` of `int64` and shape `(batch_size,)`): Positions of the images in the training set.
            contrast ([`Contrast`], *optional*): In place of what would be drawn.

        Returns:
            `torch.Tensor` of shape `()`: The sum of both sides, each a mean over the batch, in the memories' precision.

        Raises:
            IndexError: `index` is outside of the memories. (Of an index on an accelerator the device says so.)
        """
        self._check_index(index)
        if contrast is None:
            contrast = self.negatives(index, self._step)
        # Half precision would leave 3e-3 in the gradient.
        with torch.autocast(index.device.type, enabled=False):
            student = self._on_sphere(self.student_embedding, student_embeddings)
            teacher = self._on_sphere(self.teacher_embedding, teacher_embeddings.detach())
            self._normalize_once(student, teacher, contrast)
            loss = self._side(student, self.teacher_memory, 0, contrast)
            loss = loss + self._side(teacher, self.student_memory, 1, contrast)
            if self.training:
                self._update(student.detach(), teacher.detach(), index)
        return loss

    def _check_index(self, index: torch.Tensor) -> None:
        num_images = len(self.student_memory)
        # Reading it from an accelerator would make every step wait.
        if index.device.type == "cpu" and not 0 <= int(index.min()) <= int(index.max()) < num_images:
            raise IndexError(
                f"`index` reaches from {int(index.min())} to {int(index.max())}, but the training set has {num_images} "
                "images; it must be the position of each image in the set whose labels were given"
            )

    def _on_sphere(self, layer: nn.Linear, embeddings: torch.Tensor) -> torch.Tensor:
        return F.normalize(layer(embeddings.to(layer.weight.dtype)), dim=1)

    def _side(self, anchors: torch.Tensor, memory: torch.Tensor, side: int, contrast: Contrast) -> torch.Tensor:
        return side_loss(anchors, memory, contrast, self.temperature, self.normalization[side])

    @torch.no_grad()
    def _normalize_once(self, student: torch.Tensor, teacher: torch.Tensor, contrast: Contrast) -> None:
        if not self._normalized and not bool((self.normalization > 0).all()):
            sides = ((student, self.teacher_memory), (teacher, self.student_memory))
            found = torch.stack([side_normalization(*side, contrast, self.temperature) for side in sides])
            self.normalization.copy_(_of_all_processes(found[None]).mean(dim=0))
        # Reading the buffer again would make every step wait for the device.
        self._normalized = True

    @torch.no_grad()
    def _update(self, student: torch.Tensor, teacher: torch.Tensor, index: torch.Tensor) -> None:
        self._step += 1
        index, fresh = _of_all_processes(index), _of_all_processes(torch.stack([student, teacher], dim=1))
        # An image that is there twice, as when the last batches are filled up, is written twice in no certain order;
        # with the same value, that of its last place, all processes keep the same memories.
        ranked, order = index.sort(stable=True)
        fresh = fresh[order[torch.searchsorted(ranked, index, right=True) - 1]]
        for memory, new in ((self.student_memory, fresh[:, 0]), (self.teacher_memory, fresh[:, 1])):
            memory[index] = F.normalize(torch.lerp(new, memory[index], self.momentum), dim=1)


def _of_all_processes(tensor: torch.Tensor) -> torch.Tensor:
    """The rows of every process one after another; there must be as many in each."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
