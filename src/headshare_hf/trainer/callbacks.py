"""Callbacks: the epoch of the augmentation, verification, and the similarity of the two heads."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..evaluation import head_similarity, plot_head_similarity
from ..models import find_classifier
from .sharding import whole


class EpochSeedCallback(TrainerCallback):
    """
    Tells the training set its epoch, from which it derives its augmentation.

    accelerate does this for one process but not for several, where the sampler is wrapped once more.
    """

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called before the batches of an epoch are drawn."""
        dataset: Any = getattr(kwargs.get("train_dataloader"), "dataset", None)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int(state.epoch or 0))


class VerificationCallback(TrainerCallback):
    """
    Scores the student's embeddings on pairs of images after every `every_epochs` epochs.

    Args:
        trainer ([`DistillationTrainer`]): With a `verifier`.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called after the last step of an epoch."""
        if round(state.epoch or 0) % self._trainer.verifier.every_epochs == 0:
            with _log_of_the_epoch(control):
                self._trainer.verify()


class HeadSimilarityCallback(TrainerCallback):
    """
    Logs, after every epoch, how close the student's head is to another one: cosine per class, and bias distance (the
    head analysis of arXiv 2201.06945). Draws a plot of it when training ends.

    Args:
        trainer ([`DistillationTrainer`]): The trainer that logs.
        reference (`nn.Module`): The model whose head is compared with, e.g. the teacher.
        plot (`str` or `Path`, *optional*): PNG file to write.

    Raises:
        ValueError: The two heads have different shapes, so that their rows cannot be compared.
    """

    def __init__(self, trainer: Any, reference: nn.Module, plot: str | Path | None = None) -> None:
        self._trainer = trainer
        self._head = find_classifier(trainer.student)
        self._reference = find_classifier(reference)
        self._plot = plot
        if self._head.weight.shape != self._reference.weight.shape:
            raise ValueError(
                f"heads of shape {tuple(self._head.weight.shape)} and {tuple(self._reference.weight.shape)} cannot be "
                "compared class by class"
            )

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called after the last step of an epoch."""
        with self._trainer.whole_classes():
            own, other = whole(self._head.weight), self._reference.weight
            biases = _bias(self._head), _bias(self._reference)
            # One process logs. The others have helped to gather what is split, and need not compute the same.
            found = head_similarity(own, other, *biases) if state.is_world_process_zero else {}
        with _log_of_the_epoch(control):
            if found:
                self._trainer.log({f"head_{name}": value for name, value in found.items() if isinstance(value, float)})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called once, after the last epoch."""
        rows = [row for row in state.log_history if "head_cosine_mean" in row]
        if self._plot is not None and rows and state.is_world_process_zero:
            history = [{key.removeprefix("head_"): value for key, value in row.items()} for row in rows]
            plot_head_similarity(history, self._plot)


@contextmanager
def _log_of_the_epoch(control: TrainerControl) -> Iterator[None]:
    """transformers takes any log for the one that it is about to make, and would leave out the loss of the epoch."""
    wanted = control.should_log
    yield
    control.should_log = wanted


def _bias(head: nn.Module) -> torch.Tensor | None:
    bias = getattr(head, "bias", None)
    return None if bias is None else whole(bias)
