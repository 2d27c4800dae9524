"""
The fused linear cross-entropy of Liger-Kernel (arXiv 2410.10989, package liger-kernel, BSD-2), which is no part of this
package. Its kernels are written in Triton and need a GPU; it goes over the images in chunks, not over the classes.
"""

import importlib
from typing import Any

import torch
from torch import nn

from ..models import IGNORED_LABEL
from .scores import ChunkedScores


_MODULE = "liger_kernel.transformers.fused_linear_cross_entropy"


def liger_loss() -> Any:
    """
    The class of Liger-Kernel that computes the loss.

    Raises:
        ImportError: It is not installed, or does not work here.
    """
    try:
        return importlib.import_module(_MODULE).LigerFusedLinearCrossEntropyLoss
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"`large_head_kernel` 'liger' needs liger-kernel ({error}); install it with `pip install liger-kernel`, or leave "
            "`large_head_kernel` out"
        ) from error


def liger_cross_entropy(embeddings: torch.Tensor, labels: torch.Tensor, head: nn.Linear) -> torch.Tensor:
    """
    [`cross_entropy`] of the logits of a linear head, computed by Liger-Kernel, which reads the number of labels on the host
    and so waits for the device once a step. The gradient of the weights is summed in float32.

    Args:
        embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): What the head reads.
        labels (`torch.Tensor` of `int64` and shape `(batch_size,)`): Class numbers; images labelled -1 are left out.
        head (`nn.Linear`): Its parameters get a gradient.

    Returns:
        `torch.Tensor` of shape `()`; 0 where no image has a label.

    Raises:
        ImportError: Liger-Kernel is not installed.
    """
    loss = liger_loss()(ignore_index=IGNORED_LABEL, reduction="sum", accum_dtype=torch.float32)
    # Under autocast its products would be of half precision, which float16 has no numbers for, and so would the gradients.
    with torch.autocast(embeddings.device.type, enabled=False):
        total = loss(head.weight, embeddings, labels, head.bias)
    return total / (labels != IGNORED_LABEL).sum().clamp(min=1)


class LigerScores(ChunkedScores):
    """[`ChunkedScores`] with [`liger_cross_entropy`] where a linear head learns; all else goes over chunks of classes."""

    def cross_entropy(self, labels: torch.Tensor) -> torch.Tensor:
        """See [`Scores`]."""
        if isinstance(self.head, nn.Linear) and self.head.weight.requires_grad:
            return liger_cross_entropy(self.embeddings, labels, self.head)
        return super().cross_entropy(labels)
