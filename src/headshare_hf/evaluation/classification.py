"""Accuracy from running counts, whatever the number of images, and the similarity of two classifiers."""

from typing import Any

import torch
from torch.nn import functional as F
from transformers import EvalPrediction


_CLASSES_AT_A_TIME = 8192


class ClassificationCounts:
    """
    Correct and seen images of every class: all that the accuracies need, in `(len(ks) + 1) * num_labels` integers on the
    CPU, however many images are counted.

    An image is correct at k if fewer than k other classes score at least as high as its own. Without ties this is
    membership in `torch.topk`; a tie counts against the image, so that constant scores are never right by chance.

    Args:
        num_labels (`int`): Number of classes.
        ks (`tuple[int, ...]`, *optional*, defaults to `(1, 5)`): Which top-k accuracies to count; 1 is always among them.

    Raises:
        ValueError: `num_labels` is not positive, or `ks` lacks 1, repeats a number or has one below 1.
    """

    def __init__(self, num_labels: int, ks: tuple[int, ...] = (1, 5)) -> None:
        if num_labels < 1:
            raise ValueError(f"`num_labels` is {num_labels}; it must be at least 1")
        if 1 not in ks or min(ks) < 1 or len(set(ks)) != len(ks):
            raise ValueError(f"`ks` is {ks}; it must be different positive numbers, 1 among them")
        self.num_labels = num_labels
        self.ks = tuple(ks)
        self.reset()

    def reset(self) -> None:
        """Forgets everything counted."""
        self.seen = torch.zeros(self.num_labels, dtype=torch.int64)
        self.correct = torch.zeros(len(self.ks), self.num_labels, dtype=torch.int64)

    def update(self, logits: Any, labels: Any) -> None:
        """
        Counts a batch.

        Args:
            logits (`torch.Tensor` or `np.ndarray` of shape `(batch_size, num_labels)`):
                Scores, the higher the likelier, on any device.
            labels (`torch.Tensor` or `np.ndarray` of shape `(batch_size,)`): Class numbers.

        Raises:
            ValueError: The shapes do not fit, a label is no class number, or a score is NaN. Nothing is counted then.
        """
        logits, labels = torch.as_tensor(logits), torch.as_tensor(labels)
        self._check_shapes(logits, labels)
        labels = labels.to(logits.device, torch.int64)
        # A label out of range would abort a whole CUDA context in `gather`; it is reported after the transfer instead.
        own = logits.gather(1, labels.clamp(0, self.num_labels - 1)[:, None])
        ranks = (logits >= own).sum(dim=1) - 1
        # One copy to the CPU is the only synchronization of a batch.
        labels, ranks, nans = torch.stack([labels, ranks, logits.isnan().sum(dim=1)]).cpu()
        if nans.any():
            raise ValueError(
                f"{int(nans.sum())} scores of {int((nans > 0).sum())} images are NaN; a network that diverged has no "
                "accuracy"
            )
        self._check_range(labels, "label")
        self._count(labels, ranks)

    def update_classes(self, predictions: Any, labels: Any) -> None:
        """
        Counts a batch of which only the predicted classes are known; needs `ks=(1,)`.

        Args:
            predictions (`torch.Tensor` or `np.ndarray` of shape `(batch_size,)`): Predicted class numbers.
            labels (`torch.Tensor` or `np.ndarray` of shape `(batch_size,)`): Class numbers.

        Raises:
            ValueError: `ks` asks for more than the first class, the shapes do not fit, or a number is no class number.
        """
        predictions, labels = torch.as_tensor(predictions).cpu(), torch.as_tensor(labels).cpu()
        if self.ks != (1,):
            raise ValueError(
                f"predicted classes have no second choice, but `ks` is {self.ks}; use `ks=(1,)`, or logits"
            )
        if predictions.shape != labels.shape or labels.ndim != 1:
            raise ValueError(
                f"predicted classes {tuple(predictions.shape)} and labels {tuple(labels.shape)}: both must be (batch_size,)"
            )
        for numbers, name in ((predictions, "predicted class"), (labels, "label")):
            _check_integers(numbers, name)
            self._check_range(numbers, name)
        self._count(labels.long(), (predictions != labels).long())

    def grow(self, num_labels: int) -> None:
        """
        Makes room for further classes, for callers that learn their number on the way.

        Raises:
            ValueError: `num_labels` is smaller than the present number.
        """
        if num_labels < self.num_labels:
            raise ValueError(f"counts of {self.num_labels} classes cannot shrink to {num_labels}")
        added = num_labels - self.num_labels
        self.seen, self.correct = F.pad(self.seen, (0, added)), F.pad(self.correct, (0, added))
        self.num_labels = num_labels

    def compute(self) -> dict[str, float]:
        """
        Returns:
            `dict[str, float]`: Fractions in [0, 1]: `accuracy`, `top{k}_accuracy` for every further k that is smaller
            than the number of classes, and `mean_per_class_accuracy`, the mean of the top-1 accuracies of the classes
            that occur among the labels.

        Raises:
            ValueError: Nothing was counted.
        """
        total = int(self.seen.sum())
        if total == 0:
            raise ValueError("no images were counted; call `update` before `compute`")
        results = {
            "accuracy" if k == 1 else f"top{k}_accuracy": int(correct.sum()) / total
            for k, correct in zip(self.ks, self.correct, strict=True)
            if k == 1 or k < self.num_labels
        }
        occurs = self.seen > 0
        per_class = self.correct[self.ks.index(1)][occurs].double() / self.seen[occurs]
        return {**results, "mean_per_class_accuracy": per_class.mean().item()}

    def _count(self, labels: torch.Tensor, ranks: torch.Tensor) -> None:
        self.seen += torch.bincount(labels, minlength=self.num_labels)
        for k, row in zip(self.ks, self.correct, strict=True):
            row += torch.bincount(labels[ranks < k], minlength=self.num_labels)

    def _check_shapes(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != self.num_labels:
            raise ValueError(f"logits have shape {tuple(logits.shape)}; expected (batch_size, {self.num_labels})")
        if labels.shape != logits.shape[:1]:
            raise ValueError(
                f"labels have shape {tuple(labels.shape)} beside logits {tuple(logits.shape)}; expected ({len(logits)},)"
            )
        _check_integers(labels, "label")

    def _check_range(self, numbers: torch.Tensor, name: str) -> None:
        bad = (numbers < 0) | (numbers >= self.num_labels)
        if bad.any():
            index = int(bad.nonzero()[0])
            raise ValueError(
                f"{name} {int(numbers[index])} of image {index} in the batch is outside of 0 ... {self.num_labels - 1}"
            )


class ClassificationMetrics:
    """
    `compute_metrics` of `transformers.Trainer`: with `batch_eval_metrics=True` every batch is counted and dropped, and
    otherwise all of them come at once.

    The predictions may be the scores, or a pair: the student's own scores, and the log-probabilities of the mixture
    p' = (1 - w) p + w p_TH of arXiv 2201.06945, whose metrics get the prefix `mixed_`.

    Args:
        num_labels (`int`): Number of classes.
    """

    prefixes = ("", "mixed_")

    def __init__(self, num_labels: int) -> None:
        self.num_labels = num_labels
        self.reset()

    def reset(self) -> None:
        """Forgets everything counted; only needed after an evaluation that was interrupted."""
        self._counts: dict[str, ClassificationCounts] = {}

    def __call__(self, eval_pred: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """
        Args:
            eval_pred (`EvalPrediction`): Predictions and labels of one batch, gathered from all processes.
            compute_result (`bool`, *optional*, defaults to `True`): Whether this is the last batch.

        Returns:
            `dict[str, float]`: Empty before the last batch, then what [`ClassificationCounts.compute`] gives.

        Raises:
            ValueError: There are more than two outputs, or [`ClassificationCounts.update`] refuses the batch.
        """
        predictions = eval_pred.predictions
        outputs = tuple(predictions) if isinstance(predictions, tuple | list) else (predictions,)
        if len(outputs) > len(self.prefixes):
            raise ValueError(
                f"the model gives {len(outputs)} outputs; expected the logits, or logits and mixed log-probabilities. "
                "Name the others in `ignore_keys`"
            )
        for prefix, scores in zip(self.prefixes, outputs, strict=False):
            counts = self._counts.setdefault(prefix, ClassificationCounts(self.num_labels))
            counts.update(scores, eval_pred.label_ids)
        return self._finish() if compute_result else {}

    def _finish(self) -> dict[str, float]:
        results = {
            prefix + name: value for prefix, counts in self._counts.items() for name, value in counts.compute().items()
        }
        self.reset()
        return results


def head_similarity(
    weight_a: torch.Tensor,
    weight_b: torch.Tensor,
    bias_a: torch.Tensor | None = None,
    bias_b: torch.Tensor | None = None,
) -> dict[str, Any]:
    """
    How close two linear classifiers are, class by class: the head analysis of arXiv 2201.06945.

    Args:
        weight_a (`torch.Tensor` of shape `(num_labels, embedding_size)`): Weight of one head.
        weight_b (`torch.Tensor` of shape `(num_labels, embedding_size)`): Weight of the other.
        bias_a (`torch.Tensor` of shape `(num_labels,)`, *optional*): Its bias; a head without one has bias 0.
        bias_b (`torch.Tensor` of shape `(num_labels,)`, *optional*): Likewise.

    Returns:
        `dict[str, Any]`: `cosine_mean`, `cosine_min` and `cosine_std` (of the population) over the classes as `float`,
        `cosine_per_class` as `torch.Tensor` of shape `(num_labels,)` on the CPU, and `bias_distance`, the Euclidean
        distance of the biases, if there is a bias at all.

    Raises:
        ValueError: Shapes differ, or a class has the weight 0, which has no direction.
    """
    a, b = weight_a.detach(), weight_b.detach()
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"weights of shape {tuple(a.shape)} and {tuple(b.shape)} cannot be compared class by class")
    # Some classes at a time: of a million, copies in float64 would be larger than everything else in the memory.
    parts = zip(a.split(_CLASSES_AT_A_TIME), b.split(_CLASSES_AT_A_TIME), strict=True)
    cosine = torch.cat(
        [
            _cosines(_double(own), _double(other), first * _CLASSES_AT_A_TIME)
            for first, (own, other) in enumerate(parts)
        ]
    )
    result: dict[str, Any] = {
        "cosine_mean": cosine.mean().item(),
        "cosine_min": cosine.min().item(),
        "cosine_std": cosine.std(correction=0).item(),
        "cosine_per_class": cosine.float(),
    }
    if bias_a is not None or bias_b is not None:
        result["bias_distance"] = _bias_distance(bias_a, bias_b, len(a))
    return result


def _cosines(a: torch.Tensor, b: torch.Tensor, first: int) -> torch.Tensor:
    """Of each row of one with that of the other; they are those of the classes from `first` on."""
    for name, weight in (("first", a), ("second", b)):
        zero = (weight == 0).all(dim=1).nonzero().flatten().tolist()
        if zero:
            number = first + zero[0]
            raise ValueError(f"the {name} head has only zeros for class {number}, which has no direction to compare")
    return F.cosine_similarity(a, b, dim=1)


def _bias_distance(bias_a: torch.Tensor | None, bias_b: torch.Tensor | None, num_labels: int) -> float:
    zero = torch.zeros(num_labels, dtype=torch.float64)
    a, b = (zero if bias is None else _double(bias) for bias in (bias_a, bias_b))
    if a.shape != zero.shape or b.shape != zero.shape:
        raise ValueError(f"biases of shape {tuple(a.shape)} and {tuple(b.shape)}; expected ({num_labels},)")
    return (a - b).norm().item()


def _double(tensor: torch.Tensor) -> torch.Tensor:
    # Moved first: the device has no room for a copy of twice the size.
    return tensor.detach().cpu().double()


def _check_integers(numbers: torch.Tensor, name: str) -> None:
    if numbers.is_floating_point() or numbers.is_complex():
        raise ValueError(f"a {name} must be an integer class number, but the dtype is {numbers.dtype}")
