"""AdaDistill: a margin softmax around class centers that grow out of the teacher's embeddings."""

from typing import cast

import torch

from ...models import IGNORED_LABEL, CosineHead
from ...models.heads import MarginHead, create_head
from ..chunked_cross_entropy import chunked_cross_entropy
from ..class_matrix import CHUNKED_FROM
from ..contrastive import _of_all_processes
from ..cross_entropy import cross_entropy
from .alignment import check_not_negative, check_positive
from .arithmetic import unit
from .base import CompanionLoss
from .features import FeatureShapes, NeededFeatures


_HEAD_TYPES = ("arcface", "cosface")


class AdaDistillLoss(CompanionLoss):
    """
    Cross-entropy with a margin, of the student's embedding and class centers w made of the teacher's (Boutros, Štruc
    and Damer, arXiv 2407.01332). Before the loss of a batch, the center of each image's class y moves to

        w_y ← α w_y + (1 − α) f_t,    α = clip(cos(f_s, f_t) · cos(w_y, f_t), 0, 1).

    A student that is still far from its teacher f_t is so compared with the teacher's embedding of the same image; one
    that has come near, with a mean over the images of the class, except where the teacher's own embedding is far from
    that mean.

    Of the family of shared classifiers: TH-KD, and the method `inherited` (ProxylessKD, ArcDistill), read the student
    with the teacher's trained class centers, which stand still. In SH-KD they stand still too, but are those of a
    student, and the teacher was trained around them. Here they are made on the way, so that the teacher's classifier is
    not needed, nor the classes that it was trained with. What the student was trained to be read by are these centers,
    and with them it is published, see `keep_centers_in`.

    Written from the equations. What they leave open: two cosines below 0 are no nearness either, and α is 0; f_t has
    length 1; centers are zero when the training begins, so that the first image of a class becomes its center, and a class
    without images stays without one; and several images of a class in one batch move its center to the mean of where each
    alone would. With several processes, the images of all of them count.

    Args:
        student, teacher: See [`CompanionLoss`]; the student's `logits` say how many classes there are.
        head_type (`str`, *optional*, defaults to `"arcface"`): `"arcface"` or `"cosface"`, see [`create_head`].
        margin (`float`, *optional*, defaults to 0.45): Of the head; the paper has 0.35 for `"cosface"`.
        scale (`float`, *optional*, defaults to 64.0): Of the cosines.

    Raises:
        ValueError: The embeddings have different widths, the student has no classifier, there is no such head, its margin
            is negative or its scale not positive.
    """

    student_needs = ("embeddings",)
    teacher_needs = ("embeddings",)
    needs_labels = True
    makes_centers = True

    def __init__(
        self,
        student: FeatureShapes,
        teacher: FeatureShapes,
        head_type: str = "arcface",
        margin: float = 0.45,
        scale: float = 64.0,
    ) -> None:
        super().__init__(student, teacher)
        if head_type not in _HEAD_TYPES:
            raise ValueError(f"`head_type` is {head_type!r}; allowed: {', '.join(_HEAD_TYPES)}")
        check_positive(type(self).__name__, scale=scale)
        check_not_negative(type(self).__name__, margin=margin)
        if student.embeddings != teacher.embeddings or not student.embeddings:
            raise ValueError(
                f"the student's embeddings are {student.embeddings} wide and the teacher's {teacher.embeddings}, but "
                "AdaDistill compares the one with the other; set the student's `embedding_size` and `projector`"
            )
        if not student.logits:
            raise ValueError("AdaDistill keeps a center of every class; take a student with a classifier")
        self.head = cast(MarginHead, create_head(head_type, student.embeddings, student.logits, scale, margin))
        # Moved by `forward`, never by the optimizer.
        self.head.weight.requires_grad_(False).zero_()
        # Whether they are still those of a classifier from before the training.
        self._outdated = False
        # A training that goes on has its own.
        self.register_load_state_dict_post_hook(_keep)

    def keep_centers_in(self, head: CosineHead) -> None:
        """
        From here on the centers are those of `head`, which so predicts with them; nothing else may train it.

        Args:
            head ([`CosineHead`]): The student's classifier. Its own centers are forgotten by the first batch of a training,
                so that a student which is only evaluated keeps them.
        """
        head.weight.requires_grad_(False)
        self.head.weight = head.weight
        self._outdated = True

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]; images labelled -1 are left out. The centers move in training mode only."""
        embeddings = unit(student.embeddings)
        if self.training:
            self._move_centers(embeddings.detach(), unit(teacher.embeddings), labels)
        if len(self.head.weight) >= CHUNKED_FROM:
            return chunked_cross_entropy(embeddings, labels, self.head)
        return cross_entropy(self.head.margin_logits(self.head(embeddings), labels, embeddings), labels)

    @torch.no_grad()
    def _move_centers(self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> None:
        student, teacher, labels = (_of_all_processes(each) for each in (student, teacher, labels))
        centers, rows = self.head.weight, labels.clamp(min=0)
        if self._outdated:
            centers.zero_()
            self._outdated = False
        old = centers[rows].to(teacher)
        nearness = [(side * teacher).sum(dim=1).clamp(min=0) for side in (student, unit(old))]
        moved = torch.lerp(teacher, old, torch.stack(nearness).prod(dim=0).clamp(max=1).unsqueeze(1))
        # Of each image, those of its class that have a label. All images of a class write the same value.
        together = ((rows.unsqueeze(1) == rows) & (labels != IGNORED_LABEL)).to(teacher)
        count = together.sum(dim=1, keepdim=True)
        centers[rows] = torch.where(count > 0, together @ moved / count.clamp(min=1), old).to(centers)


def _keep(loss: AdaDistillLoss, _: object) -> None:
    loss._outdated = False
