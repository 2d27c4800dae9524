"""Cross-entropy with the labels, through the student's own head or through the teacher's."""

from typing import Any

import torch
from torch.nn import functional as F

from ..models import IGNORED_LABEL


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """
    Mean cross-entropy of the images with a label, in float32 whatever the precision of the logits.

    With the logits of the teacher's frozen head on the student's embedding this is the second term of equation (2) of
    arXiv 2201.06945, which the authors' code leaves out.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Scores before the softmax.
        labels (`torch.Tensor` of shape `(batch_size,)`): Class numbers; images labelled -1 are left out.
        label_smoothing (`float`, *optional*, defaults to 0.0):
            Share, in [0, 1), of the target that all classes have alike (C. Szegedy et al., arXiv 1512.00567, section 7).

    Returns:
        `torch.Tensor` of shape `()`; 0 where no image has a label.
    """
    options: dict[str, Any] = {"ignore_index": IGNORED_LABEL, "reduction": "sum", "label_smoothing": label_smoothing}
    total = F.cross_entropy(logits.float(), labels, **options)
    return total / (labels != IGNORED_LABEL).sum().clamp(min=1)
