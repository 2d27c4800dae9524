"""The frozen teacher, and running it."""

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional as F

from ..data.input_adapter import InputAdapter
from ..losses import TeacherMoments
from ..models import embedding_tap, find_classifier
from .companions import feature_maps
from .folding import folded_network


class TeacherOutput(NamedTuple):
    """
    Attributes:
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`, *optional*): The teacher's scores.
        embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`, *optional*): What its classifier read.
        moments ([`TeacherMoments`], *optional*): All that is left of it where nothing else was stored.
        maps (`dict[str, Any]`, *optional*): See [`feature_maps`].
    """

    logits: torch.Tensor | None
    embeddings: torch.Tensor | None
    moments: TeacherMoments | None = None
    maps: dict[str, Any] | None = None


class FrozenTeacher:
    """
    A teacher that only ever looks: evaluation mode, no gradient, its own weights untouched, held outside of the module
    that is trained, wrapped and saved.

    Args:
        model (`nn.Module`): An image classifier with one linear classifier on a pooled embedding.
        device (`torch.device`): Where the student trains.
        adapter ([`InputAdapter`]): Prepares the student's batches for it.
        autocast (`contextlib.AbstractContextManager`): Makes the precision it computes in.
        needs_embedding (`bool`, *optional*, defaults to `True`): Whether its embedding or its classifier will be used.
            A teacher that gives logits alone may have any kind of classifier.
        needs_logits (`bool`, *optional*, defaults to `True`): Whether its logits will be used. Its classifier is not run
            otherwise, except once on two images of a foreign network, which show that it is the only one.
        fold (`bool`, *optional*): See `fold_teacher` of [`DistillationConfig`].
        read_by_layers (`bool`, *optional*, defaults to `False`): Whether layers that learn read its output.
        with_maps (`bool`, *optional*, defaults to `False`): Whether its feature maps will be used.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        adapter: InputAdapter,
        autocast: Any,
        needs_embedding: bool = True,
        needs_logits: bool = True,
        fold: bool | None = None,
        read_by_layers: bool = False,
        with_maps: bool = False,
    ) -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self._dtype = next(model.parameters()).dtype
        self._adapter = adapter
        self._autocast = autocast
        self._needs_embedding = needs_embedding
        self._tap = embedding_tap(model) if needs_embedding else None
        self._checked = not needs_embedding
        self._needs_logits = needs_logits
        self._leaves_classifier = False
        self._fold = fold
        self._options: dict[str, Any] = {"output_hidden_states": True} if with_maps else {}
        # Tensors made in inference mode cannot be kept for the gradient of a layer.
        self._without_gradient = torch.no_grad if read_by_layers else torch.inference_mode
        self._network: nn.Module | None = None

    @property
    def classifier(self) -> Any:
        """The frozen layer that the student's embedding is read by."""
        return find_classifier(self.model)

    @property
    def shared_classifier(self) -> Any:
        """[`classifier`], or `None` for a teacher that gives logits alone."""
        return self.classifier if self._needs_embedding else None

    def leave_classifier(self) -> None:
        """Takes the classifier off the device, where others hold its classes and the logits are not asked for."""
        self._leaves_classifier = True
        # A foreign one is run once, on its first images.
        if self._tap is None or self._checked:
            self.classifier.cpu()

    def head(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits `(batch_size, num_labels)` of the frozen classifier on anybody's embeddings; gradients pass through."""
        return read_by(self.classifier, embeddings)

    def __call__(self, pixel_values: torch.Tensor, batch: Mapping[str, torch.Tensor] | None = None) -> TeacherOutput:
        """
        Runs the teacher on a batch `(batch_size, num_channels, height, width)` normalised for the student. The rest of
        the `batch` is for teachers whose output is looked up.
        """
        with self._without_gradient(), self._autocast():
            images = self._adapter(pixel_values).to(self._dtype)
            if self._tap is not None and not self._needs_logits and not self._checked:
                # Two images show it as well as all of them, whose logits are not to be held.
                logits = cast(Any, self.model)(pixel_values=images[:2]).logits
                self._check_once(logits, self._tap.take())
                if self._leaves_classifier:
                    self.classifier.cpu()
        if self._network is None:
            self._network = self._prepared(images)
        with self._without_gradient(), self._autocast():
            return self._run(self._network, images)

    def _prepared(self, images: torch.Tensor) -> nn.Module:
        """The network that computes; `self.model`, whose weights are those of the user, stays as it is."""
        if self._fold is False:
            return self.model
        return folded_network(self.model, self._run, images, self.shared_classifier, required=bool(self._fold))

    def _run(self, network: nn.Module, images: torch.Tensor) -> TeacherOutput:
        if not self._needs_logits:
            return self._run_without_logits(network, images)
        output = network(pixel_values=images, **self._options)
        embeddings = None
        if self._needs_embedding:
            embeddings = output.embeddings if self._tap is None else self._tap.take()
            self._check_once(output.logits, embeddings)
        return TeacherOutput(output.logits, embeddings, maps=self._maps(output))

    def _run_without_logits(self, network: nn.Module, images: torch.Tensor) -> TeacherOutput:
        if self._tap is None:
            output = cast(Any, network).base_model(images, **self._options)
            return TeacherOutput(None, output.embeddings, maps=self._maps(output))
        with self._tap.without_logits():
            output = network(pixel_values=images, **self._options)
        return TeacherOutput(None, self._tap.take(), maps=self._maps(output))

    def _maps(self, output: Any) -> dict[str, Any] | None:
        return feature_maps(output) if self._options else None

    def _check_once(self, logits: torch.Tensor, embeddings: torch.Tensor) -> None:
        # Reading the result waits for the device, so only the first batch is looked at.
        # What is not finite has another cause, which is named where it shows. Networks of this package are known.
        is_foreign = not self._checked and self._tap is not None
        if is_foreign and not torch.allclose(
            logits.float(), self.classifier(embeddings).float(), atol=1e-3, equal_nan=True
        ):
            raise ValueError(
                f"the logits of {type(self.model).__name__} are not those of its classifier on its embedding, so the "
                "classifier alone cannot be shared; use a model whose last layer is its only classifier"
            )
        self._checked = True


def read_by(classifier: nn.Module, embeddings: torch.Tensor) -> torch.Tensor:
    """
    Logits of a frozen classifier on anybody's embeddings, in float32 at least: the gradient of a softmax over many classes
    consists of numbers that float16 has not.

    Args:
        classifier (`nn.Module`): A linear layer or a head of this package, of any floating dtype.
        embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): What it reads.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_labels)`; gradients pass through.
    """
    weight = cast(torch.Tensor, classifier.weight)
    dtype = torch.promote_types(weight.dtype, torch.float32)
    if not isinstance(classifier, nn.Linear):
        # Heads of this package take both to float32 themselves.
        return classifier(embeddings.to(dtype))
    if weight.dtype == dtype:
        return classifier(embeddings.to(dtype))
    bias = None if classifier.bias is None else classifier.bias.to(dtype)
    return F.linear(embeddings.to(dtype), weight.to(dtype), bias)


def teacher_autocast(precision: str, device: torch.device, training: Any) -> Any:
    """
    The factory of the context in which a teacher computes.

    Args:
        precision (`str`): `"auto"`, or the name of a dtype.
        device (`torch.device`): Where it computes.
        training (`Callable`): The factory of the training's own autocast, used by `"auto"`.
    """
    if precision == "auto":
        return training
    if precision == "float32":
        return contextlib.nullcontext
    dtype = getattr(torch, precision)
    return lambda: torch.autocast(device.type, dtype=dtype)
