"""The frozen teacher: feeding it what it was trained on, and running it."""

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional as F

from ..losses import TeacherMoments
from ..models import embedding_tap, find_classifier
from .companions import feature_maps
from .folding import folded_network


class InputStatistics(NamedTuple):
    """
    How a model wants its images.

    Attributes:
        mean (`tuple[float, ...]`): Per channel, of images in [0, 1], in the model's channel order.
        std (`tuple[float, ...]`): Likewise.
        size (`tuple[int, int]`, *optional*): Height and width in pixels; `None` takes any.
        channel_order (`str`): `"rgb"` or `"bgr"`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None = None
    channel_order: str = "rgb"


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


def input_statistics(processor: Any, model: nn.Module | None = None) -> InputStatistics | None:
    """
    The statistics that an image processor applies, or that a timm network carries in its configuration.

    Args:
        processor (`Any`): A transformers image processor, or `None`.
        model (`nn.Module`, *optional*): The model, asked when there is no processor.

    Returns:
        [`InputStatistics`], or `None` when neither says anything.
    """
    pretrained_cfg = getattr(processor, "data_config", None) or getattr(
        getattr(model, "config", None), "pretrained_cfg", None
    )
    if processor is not None and getattr(processor, "image_mean", None) is not None:
        size = (
            _height_width(getattr(processor, "crop_size", None))
            if getattr(processor, "do_center_crop", False)
            else None
        )
        size = size or _height_width(getattr(processor, "size", None))
        order = getattr(processor, "channel_order", "rgb")
        return InputStatistics(*_mean_std(processor), size, order)
    if pretrained_cfg and pretrained_cfg.get("mean"):
        size = tuple(pretrained_cfg["input_size"][1:])
        return InputStatistics(tuple(pretrained_cfg["mean"]), tuple(pretrained_cfg["std"]), size)
    return None


def _mean_std(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation in terms of images in [0, 1], whatever the processor rescales and normalises."""
    normalises = getattr(processor, "do_normalize", True)
    channels = len(processor.image_mean)
    mean = tuple(processor.image_mean) if normalises else (0.0,) * channels
    std = tuple(processor.image_std) if normalises else (1.0,) * channels
    factor = processor.rescale_factor if getattr(processor, "do_rescale", True) else 1.0
    unit = 255 * factor
    # The usual case stays exactly what the processor says.
    return (mean, std) if abs(unit - 1) < 1e-9 else (tuple(m / unit for m in mean), tuple(s / unit for s in std))


def _height_width(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    size = dict(size)
    if size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    edge = size.get("shortest_edge")
    return (int(edge), int(edge)) if edge else None


class InputAdapter:
    """
    Turns a batch normalised for the student into one normalised for the teacher: one multiplication and addition per
    channel, the other channel order and another size only where they differ.

    Args:
        student ([`InputStatistics`], *optional*): Of the batches that come in.
        teacher ([`InputStatistics`], *optional*): Of the batches that go out. With either `None`, both are the same.
    """

    def __init__(self, student: InputStatistics | None, teacher: InputStatistics | None) -> None:
        self.size = teacher.size if teacher is not None else None
        self.flip = False
        self.scale: torch.Tensor | None = None
        self.shift: torch.Tensor | None = None
        if student is None and teacher is not None:
            raise ValueError(
                "the teacher's image statistics are known but the student's are not, so its input cannot be prepared; "
                "pass the student's image processor as `processing_class`"
            )
        if student is None or teacher is None:
            return
        _check_channels(student, teacher)
        self.flip = student.channel_order != teacher.channel_order
        self._set_affine(student, teacher)

    def _set_affine(self, student: InputStatistics, teacher: InputStatistics) -> None:
        step = -1 if self.flip else 1
        mean, std = (torch.tensor(values[::step], dtype=torch.float64) for values in (student.mean, student.std))
        target_mean, target_std = (torch.tensor(values, dtype=torch.float64) for values in (teacher.mean, teacher.std))
        if torch.equal(mean, target_mean) and torch.equal(std, target_std):
            return
        self.scale = (std / target_std).float().view(1, -1, 1, 1)
        self.shift = ((mean - target_mean) / target_std).float().view(1, -1, 1, 1)

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Maps `(batch_size, num_channels, height, width)` to the teacher's statistics and size."""
        if self.flip:
            pixel_values = pixel_values.flip(1)
        if self.scale is not None and self.shift is not None:
            self.scale, self.shift = self.scale.to(pixel_values.device), self.shift.to(pixel_values.device)
            pixel_values = pixel_values * self.scale + self.shift
        if self.size is not None and tuple(pixel_values.shape[-2:]) != self.size:
            pixel_values = F.interpolate(pixel_values, self.size, mode="bicubic", antialias=True)
        return pixel_values


def _check_channels(student: InputStatistics, teacher: InputStatistics) -> None:
    if len(student.mean) != len(teacher.mean):
        raise ValueError(
            f"the student reads {len(student.mean)} channels and the teacher {len(teacher.mean)}; use one image "
            "processor with as many channels as the teacher for both"
        )


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
        needs_logits (`bool`, *optional*, defaults to `True`): Whether its logits will be used. This package's models do
            not run their classifier otherwise.
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
        self._without_head = not needs_logits and self._tap is None
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

    def head(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits `(batch_size, num_labels)` of the frozen classifier on anybody's embeddings; gradients pass through."""
        return self.classifier(embeddings.to(self._dtype))

    def __call__(self, pixel_values: torch.Tensor, batch: Mapping[str, torch.Tensor] | None = None) -> TeacherOutput:
        """
        Runs the teacher on a batch `(batch_size, num_channels, height, width)` normalised for the student. The rest of
        the `batch` is for teachers whose output is looked up.
        """
        with self._without_gradient(), self._autocast():
            images = self._adapter(pixel_values).to(self._dtype)
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
        if self._without_head:
            output = cast(Any, network).base_model(images, **self._options)
            return TeacherOutput(None, output.embeddings, maps=self._maps(output))
        output = network(pixel_values=images, **self._options)
        embeddings = None
        if self._needs_embedding:
            embeddings = output.embeddings if self._tap is None else self._tap.take()
            self._check_once(output.logits, embeddings)
        return TeacherOutput(output.logits, embeddings, maps=self._maps(output))

    def _maps(self, output: Any) -> dict[str, Any] | None:
        return feature_maps(output) if self._options else None

    def _check_once(self, logits: torch.Tensor, embeddings: torch.Tensor) -> None:
        # Reading the result waits for the device, so only the first batch is looked at.
        # What is not finite has another cause, which is named where it shows.
        if not self._checked and not torch.allclose(
            logits.float(), self.classifier(embeddings).float(), atol=1e-3, equal_nan=True
        ):
            raise ValueError(
                f"the logits of {type(self.model).__name__} are not those of its classifier on its embedding, so the "
                "classifier alone cannot be shared; use a model whose last layer is its only classifier"
            )
        self._checked = True


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
