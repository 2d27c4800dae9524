"""A teacher that does not run: what it said is looked up, for every view of every image."""

import contextlib
import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from ..data import collate
from ..data.input_adapter import InputStatistics
from ..losses import TeacherMoments, teacher_moments
from ..models import HeadShareForImageClassification, find_classifier
from .teacher import FrozenTeacher, TeacherOutput, read_by
from .teacher_rows import TeacherCacheError, TeacherRows


# What the rows of a batch are called in it.
ROWS = "teacher_rows"


class TeacherUse(NamedTuple):
    """
    What the losses of a run read of its teacher.

    Attributes:
        classifier (`bool`): Its classifier, or its embedding.
        logits (`bool`): Its logits as a matrix.
        embeddings (`bool`): Its embedding itself, and not only what its classifier makes of it.
        moments_at (`float`, *optional*):
            The temperature, where nothing but the softened divergence through its own classifier is asked for and the
            [`TeacherMoments`] are to be stored.
    """

    classifier: bool
    logits: bool
    embeddings: bool
    moments_at: float | None = None


class CachedTeacher:
    """
    Takes the place of a [`FrozenTeacher`]: embeddings and logits come from a cache, and only the classifier is on the
    device. The logits are the classifier applied to the embedding, so that one row a view is enough: the embedding, or
    the logits where there are fewer of them and the embedding itself is not read, or the moments.

    Args:
        model (`nn.Module`): The teacher. It stays where it is.
        frozen (`Callable`): Makes the [`FrozenTeacher`] that fills the cache.
        statistics (`tuple[InputStatistics, InputStatistics]`): Of the student's images and of the teacher's.
        device (`torch.device`): Where the student trains.
        autocast (`Callable`): Factory of the context in which the teacher computes.
        use ([`TeacherUse`]): What the losses read.

    Attributes:
        stored (`str`): What a row is, `"embeddings"`, `"logits"` or `"moments"`.
        width (`int`): Its length.
        content (`dict[str, Any]`): `stored`, and what the rows depend on in the losses.
    """

    def __init__(
        self,
        model: nn.Module,
        frozen: Callable[[], FrozenTeacher],
        statistics: tuple[InputStatistics | None, InputStatistics | None],
        device: torch.device,
        autocast: Any,
        use: TeacherUse,
    ) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.statistics = statistics
        self._frozen, self._autocast, self._use = frozen, autocast, use
        self._device = device
        self._classifier: Any = None
        config: Any = model.config
        self.stored, self.width = _row(config.num_labels, find_classifier(model) if use.classifier else None, use)
        self.content = {"stored": self.stored, "temperature": use.moments_at}

    @property
    def classifier(self) -> Any:
        """The frozen layer that the student's embedding is read by."""
        if self._classifier is None:
            self._classifier = _on_device(find_classifier(self.model), self._device)
        return self._classifier

    @property
    def shared_classifier(self) -> Any:
        """[`classifier`], or `None` for a teacher that gives logits alone."""
        return self.classifier if self._use.classifier else None

    def head(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits `(batch_size, num_labels)` of the frozen classifier on anybody's embeddings; gradients pass through."""
        return read_by(self.classifier, embeddings)

    def __call__(self, pixel_values: torch.Tensor, batch: Mapping[str, torch.Tensor] | None = None) -> TeacherOutput:
        """
        What the cache has of the images of a batch.

        Raises:
            TeacherCacheError: The batch is not of the trainer's own data loader.
        """
        if batch is None or ROWS not in batch:
            raise TeacherCacheError(
                f"the batch has no `{ROWS}`: with `teacher_cache`, only batches of the trainer's own "
                "`get_train_dataloader()` come with what the teacher says of them"
            )
        rows = batch[ROWS].to(torch.float32)
        if self.stored == "logits":
            return TeacherOutput(rows, None)
        if self.stored == "moments":
            return TeacherOutput(None, None, TeacherMoments(rows[:, :-1], rows[:, -1]))
        if not self._use.logits:
            return TeacherOutput(None, rows)
        # As the teacher itself does: those of this package leave autocast for their scores.
        is_ours = isinstance(self.model, HeadShareForImageClassification)
        with torch.no_grad(), contextlib.nullcontext() if is_ours else self._autocast():
            return TeacherOutput(self.classifier(rows.to(self.classifier.weight.dtype)), rows)

    def prepare(self, in_layout: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        """
        Gets the whole teacher onto the device.

        Args:
            in_layout (`Callable`): Brings images into the memory layout of the training.

        Returns:
            `Callable`: From images `(batch_size, num_channels, height, width)` to rows `(batch_size, width)`.
        """
        teacher = self._frozen()

        def run(images: torch.Tensor) -> torch.Tensor:
            output: Any = teacher(in_layout(images))
            if self.stored == "logits":
                return output.logits.float()
            embeddings = output.embeddings.float()
            if self._use.moments_at is None:
                return embeddings
            moments = teacher_moments(embeddings, teacher.classifier, self._use.moments_at)
            return torch.cat([moments.mean_center, moments.neg_entropy[:, None]], dim=1)

        return run


def _row(classes: int, classifier: Any, use: TeacherUse) -> tuple[str, int]:
    """What a row is, and its length."""
    if classifier is None:
        return "logits", classes
    size = classifier.in_features
    if use.moments_at is not None:
        return "moments", size + 1
    return ("embeddings", size) if use.embeddings or classes > size else ("logits", classes)


def _on_device(classifier: nn.Module, device: torch.device) -> nn.Module:
    """The classifier itself, or a copy where it is elsewhere: a network is not split over two devices."""
    if next(classifier.parameters()).device == device:
        return classifier
    return copy.deepcopy(classifier).to(device)


class RowsCollator:
    """
    Adds to a batch what the cache has of its images, in the process that makes the batch.

    Args:
        rows ([`TeacherRows`]): The cache.
    """

    def __init__(self, rows: TeacherRows) -> None:
        self._rows = rows

    def __call__(self, items: Any) -> dict[str, torch.Tensor]:
        batch = collate(items)
        return {**batch, ROWS: self._rows.read(batch["index"], batch["view"])}


def check_cacheable(dataset: Any, collator: Any) -> None:
    """
    Checks that every image which training will show is one of a known number of views.

    Args:
        dataset (`Any`): The training set, or `None`.
        collator (`Callable`): What makes batches of it.

    Raises:
        TeacherCacheError: It does not say how it augments, every epoch has views of its own, or the collator is not that
            of the trainer.
    """
    if collator is not collate:
        raise TeacherCacheError(
            "`data_collator` may change images after the data set has made them, so that the teacher's stored outputs "
            "would be of other images; leave out `data_collator` or `teacher_cache`"
        )
    if dataset is None:
        return
    if not hasattr(dataset, "every_view"):
        raise TeacherCacheError(
            f"the training set, a {type(dataset).__name__}, does not say which views of an image there are, so that the "
            "teacher's outputs cannot be stored; use ImageClassificationDataset, or leave out `teacher_cache`"
        )
    try:
        dataset.every_view()
    except ValueError as error:
        raise TeacherCacheError(f"`teacher_cache` needs a known number of views of every image: {error}") from error
