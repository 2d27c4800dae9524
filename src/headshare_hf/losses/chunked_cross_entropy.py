"""Cross-entropy over so many classes that the logits of a batch would not fit, or not into the cache."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ..models import IGNORED_LABEL, CosineHead
from .class_matrix import ClassMatrix
from .sampled_classes import sample_classes
from .streamed import LogitGradients, RunningSoftmax, Shares


class LabelScores(NamedTuple):
    """
    What the cross-entropy needs of all logits, or of those of one part of the classes.

    Attributes:
        target (`torch.Tensor` of shape `(batch_size,)`): Logit of the label, 0 where it is not in this part.
        others (`torch.Tensor` of shape `(batch_size,)`): log Σ exp over the other classes of this part.
        found (`torch.Tensor` of `bool` and shape `(batch_size,)`): Whether the label is in this part.
    """

    target: torch.Tensor
    others: torch.Tensor
    found: torch.Tensor


def chunked_cross_entropy(
    embeddings: torch.Tensor,
    labels: torch.Tensor,
    head: nn.Module,
    sample_rate: float = 1.0,
    seed: int = 0,
    step: int = 0,
) -> torch.Tensor:
    """
    [`cross_entropy`] of the logits of `head`, with its margin where it has one, without those logits being held.

    The classes are gone through twice, forward for the normalizers and backward for the gradients, a chunk at a time.
    Beside the results this takes the memory of a few chunks of logits; the class weights get one gradient buffer.
    Everything is computed in float32, or in float64 where the inputs are; under autocast the factors of products, but
    for the logits of the labels, are rounded to bfloat16 and summed in float32. There is no second derivative.

    Args:
        embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): What the head reads.
        labels (`torch.Tensor` of `int64` and shape `(batch_size,)`): Class numbers; images labelled -1 are left out.
        head (`nn.Module`): An `nn.Linear` or a [`CosineHead`]; its parameters get a gradient where they want one.
        sample_rate (`float`, *optional*, defaults to 1.0):
            Share of the classes without an image in the batch that the softmax runs over, drawn anew at each step:
            the loss of Partial FC (arXiv 2203.15565). The loss is then smaller than over all classes.
        seed (`int`, *optional*, defaults to 0): Of that draw.
        step (`int`, *optional*, defaults to 0): Number of the training step, for that draw.

    Returns:
        `torch.Tensor` of shape `()`; 0 where no image has a label, nan where labels on an accelerator are no classes.

    Raises:
        TypeError: The head is of another kind.
        ValueError: A label is no class, `sample_rate` is outside (0, 1], or the embeddings have another width than
            the head reads.
    """
    classes = ClassMatrix.of(head)
    with torch.autocast(embeddings.device.type, enabled=False):
        chosen, columns = sample_classes(classes, labels, sample_rate, seed, step)
        scores = label_scores(embeddings, columns, chosen)
        return labelled_loss(scores, embeddings, labels, head)


def label_scores(embeddings: torch.Tensor, columns: torch.Tensor, classes: ClassMatrix) -> LabelScores:
    """
    The scores of some or all classes; those of several parts go through [`combine_scores`].

    Args:
        embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): What the classifier reads.
        columns (`torch.Tensor` of `int64` and shape `(batch_size,)`):
            The label of each image as a row of `classes`; any number that is none stands for a class elsewhere.
        classes ([`ClassMatrix`]): The classifier, or the part of it that this process holds.
    """
    queries, slopes = classes.queries(embeddings)
    target, others = _LabelScores.apply(queries, classes.weight, classes.bias, slopes, columns, classes)
    return LabelScores(target, others, (columns >= 0) & (columns < len(classes)))


def combine_scores(parts: Sequence[LabelScores]) -> LabelScores:
    """The scores of all classes from those of parts that share no class, in any order and grouping."""
    targets, others, found = (torch.stack(values) for values in zip(*parts, strict=True))
    return LabelScores(targets.sum(dim=0), others.logsumexp(dim=0), found.any(dim=0))


def labelled_loss(
    scores: LabelScores, embeddings: torch.Tensor, labels: torch.Tensor, head: nn.Module
) -> torch.Tensor:
    """
    The mean over the labelled images, from the scores of all classes; the margin of `head` is applied here.

    Raises:
        ValueError: A label on the CPU is neither a class nor -1. An accelerator would have to be waited for; there the
            result is nan.
    """
    counted = labels != IGNORED_LABEL
    unknown = counted & ~scores.found
    if labels.device.type == "cpu" and unknown.any():
        raise ValueError(
            f"`labels` hold {int(labels[unknown][0])}, which is no class of the head; "
            f"give {IGNORED_LABEL} to images that are to be left out"
        )
    target = scores.target.masked_fill(unknown, torch.nan)
    if isinstance(head, CosineHead):
        columns = torch.where(counted, 0, IGNORED_LABEL)
        target = head.margin_logits(target.unsqueeze(1), columns, embeddings).squeeze(1)
    # log(1 + exp(others - target)), which keeps its digits where the target is far ahead.
    losses = -F.logsigmoid(target - scores.others)
    return torch.where(counted, losses, 0).sum() / counted.sum().clamp(min=1)


class _LabelScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        slopes: torch.Tensor,
        columns: torch.Tensor,
        classes: ClassMatrix,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        softmax = RunningSoftmax(queries, slopes, classes, keep=float(any(ctx.needs_input_grad)))
        target = queries.new_zeros((len(queries), 1))
        for chunk in classes.chunks(len(queries), queries.dtype):
            logits = softmax.logits(chunk)
            places, inside = chunk.locate(columns)
            found = logits.gather(1, places)
            target = torch.where(inside, found, target)
            logits.scatter_(1, places, found.masked_fill_(inside, -torch.inf))
            softmax.add(logits)
        if classes.rounded is not None and len(classes):
            # The loss of an image that is nearly right is a small difference to its label's own logit.
            inside = ((columns >= 0) & (columns < len(classes))).unsqueeze(1)
            target = torch.where(inside, classes.logits_at(columns, queries, slopes), target)
        others = softmax.log_sum()
        ctx.save_for_backward(queries, weight, bias, slopes, columns, others, *softmax.kept)
        ctx.classes = classes
        return target.squeeze(1), others.squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_target: torch.Tensor, grad_others: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        queries, weight, bias, slopes, columns, others, *kept = ctx.saved_tensors
        classes = replace(ctx.classes, weight=weight, bias=bias)
        sums = LogitGradients(queries, slopes, classes, ctx.needs_input_grad[:3])
        shares = Shares(queries, slopes, classes, others, kept)
        with torch.autocast(queries.device.type, enabled=False):
            for chunk in classes.chunks(len(queries), queries.dtype):
                gradient = shares.next(chunk).mul_(grad_others.unsqueeze(1))
                # The label is not among the others: what stands in its place, maybe no number, is not used.
                places, inside = chunk.locate(columns)
                found = gradient.gather(1, places)
                gradient.scatter_(1, places, torch.where(inside, grad_target.unsqueeze(1), found))
                sums.add(chunk, gradient)
        return sums.queries, sums.weight, sums.bias, None, None, None
