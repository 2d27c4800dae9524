"""Cross-entropy with the labels, through the student's own head or through the teacher's."""

import torch
from torch.nn import functional as F

from ..models import IGNORED_LABEL


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """
    Mean cross-entropy of the images with a label, in float32 whatever the precision of the logits.

    With the logits of the teacher's frozen head on the student's embedding this is the second term of equation (2) of
    arXiv 2201.06945, which the authors' code leaves out.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Scores before the softmax.
        labels (`torch.Tensor` of shape `(batch_size,)`): Class numbers; images labelled -1 are left out.

    Returns:
        `torch.Tensor` of shape `()`; 0 where no image has a label.
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED_LABEL, reduction="sum")
    return total / (labels != IGNORED_LABEL).sum().clamp(min=1)
