"""The contrastive loss of CRD as others compute it: the authors' code, and a plain loop; and the drawing of negatives."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch.nn import functional as F

from headshare_hf.losses import ContrastiveLoss


class PlainLoss:
    """
    The loss as it is usually written: the rows of every image are gathered from both memories.

    Args:
        ours ([`ContrastiveLoss`]): After its first batch. Its layers are used, its memories are copied.
    """

    def __init__(self, ours: ContrastiveLoss) -> None:
        self._ours = ours
        self._memories = {name: getattr(ours, f"{name}_memory").clone() for name in ("student", "teacher")}

    def __call__(
        self, student: torch.Tensor, teacher: torch.Tensor, index: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """`rows`: of every image its own and its negatives, positions in the memories."""
        ours, memories = self._ours, self._memories
        anchors = F.normalize(ours.student_embedding(student)), F.normalize(ours.teacher_embedding(teacher))
        loss = self._side(anchors[0], memories["teacher"][rows], ours.normalization[0])
        loss = loss + self._side(anchors[1], memories["student"][rows], ours.normalization[1])
        with torch.no_grad():
            for memory, new in zip(memories.values(), anchors, strict=True):
                memory[index] = F.normalize((memory[index] + new) / 2)
        return loss

    def _side(self, anchors: torch.Tensor, entries: torch.Tensor, normalization: torch.Tensor) -> torch.Tensor:
        noise = (entries.shape[1] - 1) / len(self._ours.student_memory)
        scores = torch.bmm(entries, anchors[:, :, None]).squeeze(2)
        ratio = (scores / self._ours.temperature).exp() / normalization
        positive = (ratio[:, 0] / (ratio[:, 0] + noise + 1e-7)).log()
        negative = (noise / (ratio[:, 1:] + noise + 1e-7)).log()
        return -(positive.sum() + negative.sum()) / len(anchors)


def reference_loss(ours: ContrastiveLoss, num_negatives: int) -> torch.nn.Module:
    """The authors' loss with the weights, memories and constants of ours, which has seen its first batch."""
    from crd.criterion import CRDLoss

    student, teacher, memory = ours.student_embedding, ours.teacher_embedding, ours.student_memory
    widths = {"s_dim": student.in_features, "t_dim": teacher.in_features, "feat_dim": memory.shape[1]}
    constants = {"n_data": len(memory), "nce_k": num_negatives, "nce_t": ours.temperature, "nce_m": ours.momentum}
    loss = CRDLoss(SimpleNamespace(**widths, **constants)).to(memory.device)
    loss.embed_s.linear.load_state_dict(student.state_dict())
    loss.embed_t.linear.load_state_dict(teacher.state_dict())
    loss.contrast.memory_v1.copy_(memory)
    loss.contrast.memory_v2.copy_(ours.teacher_memory)
    loss.contrast.params[2:4] = ours.normalization
    return loss


def negatives_of_images(labels: torch.Tensor, num_negatives: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """
    Draws rows of negatives as the authors' data set does: `numpy.random.choice` for every image.

    Args:
        labels (`torch.Tensor` of shape `(num_images,)`): Class of every image.
        num_negatives (`int`): Of each.
    """
    classes = labels.cpu().numpy()
    others = [np.flatnonzero(classes != label) for label in range(int(classes.max()) + 1)]

    def draw(index: torch.Tensor) -> torch.Tensor:
        drawn = [np.random.choice(others[classes[i]], num_negatives, replace=False) for i in index.tolist()]
        return torch.from_numpy(np.stack(drawn)).to(index.device)

    return draw
