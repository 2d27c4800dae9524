"""What is exported: a network with named outputs, what a file says about it, and the proof that a file computes it."""

import contextlib
import copy
import importlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.pixels import working_size
from ..models import HeadShareForImageClassification, HeadShareModel
from ..models.backbone_face import height_and_width
from ..models.configuration_headshare import has_placeholder_labels
from ..models.model_checks import check_channels


INPUT_NAME = "pixel_values"
CHECKED_BATCH_SIZES = (1, 3, 8)
# Of the largest value of an output: two float32 implementations that sum in another order are nearer than this.
TOLERANCE = 1e-4

Outputs = dict[str, torch.Tensor]


def exported_part(model: nn.Module, embeddings_only: bool) -> nn.Module:
    """
    The model, or the part of it that makes embeddings.

    Raises:
        TypeError: It is no model of this package.
    """
    if not isinstance(model, HeadShareForImageClassification | HeadShareModel):
        raise TypeError(
            f"export takes a HeadShareForImageClassification or a HeadShareModel, not a {type(model).__name__}"
        )
    return model.base_model if embeddings_only else model


class ExportNetwork(nn.Module):
    """
    A copy of a model in float32 on the CPU and in evaluation mode, which returns a dict of named tensors.

    Args:
        model (`nn.Module`): What [`exported_part`] gives; it is left as it is.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = copy.deepcopy(model).to("cpu", torch.float32)
        has_logits = isinstance(model, HeadShareForImageClassification)
        self.outputs = ("logits", "embeddings") if has_logits else ("embeddings",)
        self.eval()

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        """Maps `(batch_size, num_channels, height, width)` to `logits`, where it has a classifier, and `embeddings`."""
        output = self.model(pixel_values=pixel_values)
        return {name: getattr(output, name) for name in self.outputs}


def choose_image_size(model: Any, processor: Any | None, image_size: int | list[int] | None) -> tuple[int, int]:
    """
    Height and width of the images of a file: those of the image processor, those given, or the configuration's.

    Raises:
        ValueError: The image processor makes images of another size, or with another number of channels.
    """
    if processor is None:
        return height_and_width(model.config.image_size if image_size is None else image_size)
    made = working_size(processor)
    if image_size is not None and height_and_width(image_size) != made:
        raise ValueError(
            f"`image_size` is {image_size} but the image processor makes images of {made[0]}x{made[1]} pixels; leave "
            "`image_size` out, or change the processor's `size`"
        )
    check_channels(processor.to_dict(), model.config.num_channels)
    return made


def describe(
    model: Any, processor: Any | None, image_size: tuple[int, int], outputs: tuple[str, ...]
) -> dict[str, Any]:
    """What a file says of itself, as JSON has it: network, labels, and how images are prepared."""
    config = model.config
    content: dict[str, Any] = {
        "backbone": config.backbone,
        "input": INPUT_NAME,
        "outputs": list(outputs),
        "image_size": list(image_size),
        "num_channels": config.num_channels,
    }
    if "logits" in outputs:
        content["head_type"] = config.head_type
        if not has_placeholder_labels(config):
            content["labels"] = [config.id2label[index] for index in range(config.num_labels)]
    if config.verification_thresholds is not None:
        content["verification_thresholds"] = config.verification_thresholds
    return content if processor is None else {**content, **_preparation(processor)}


def _preparation(processor: Any) -> dict[str, Any]:
    content = {
        # Processors of other packages have no such field, and their images stay RGB.
        "channel_order": getattr(processor, "channel_order", "rgb"),
        "image_mean": list(processor.image_mean) if processor.do_normalize else None,
        "image_std": list(processor.image_std) if processor.do_normalize else None,
        "rescale_factor": processor.rescale_factor if processor.do_rescale else None,
        "resize": dict(processor.size) if processor.do_resize else None,
        "resample": int(processor.resample),
        "center_crop": dict(processor.crop_size) if getattr(processor, "do_center_crop", False) else None,
    }
    return {name: value for name, value in content.items() if value is not None}


def example_images(num_channels: int, image_size: tuple[int, int], batch_size: int) -> torch.Tensor:
    """Standard normal noise of shape `(batch_size, num_channels, height, width)`, always the same."""
    generator = torch.Generator().manual_seed(batch_size)
    return torch.randn(batch_size, num_channels, *image_size, generator=generator)


def compare_outputs(
    reference: Callable[[torch.Tensor], Mapping[str, torch.Tensor]],
    candidate: Callable[[torch.Tensor], Mapping[str, torch.Tensor]],
    num_channels: int,
    image_size: tuple[int, int],
    name: str,
) -> dict[str, dict[str, float]]:
    """
    Checks on noise, in batches of 1, 3 and 8 images, that two networks compute the same.

    Args:
        reference (`Callable`): From images to named outputs.
        candidate (`Callable`): Likewise.
        num_channels (`int`): Channels of the images.
        image_size (`tuple[int, int]`): Height and width in pixels.
        name (`str`): Of the candidate, for the message.

    Returns:
        `dict[str, dict[str, float]]`: For every output `max_abs_difference`, `scale` (the largest absolute value) and
        `relative_difference`, their quotient.

    Raises:
        ValueError: An output differs by more than 1e-4 of its scale, or is not finite; names it.
    """
    found: dict[str, dict[str, float]] = {}
    for batch_size in CHECKED_BATCH_SIZES:
        images = example_images(num_channels, image_size, batch_size)
        with torch.inference_mode():
            expected, got = reference(images), candidate(images)
        for output, values in expected.items():
            difference, scale = _distance(values, got[output])
            if not difference <= TOLERANCE * scale:
                raise ValueError(
                    f"the output `{output}` of {name} differs from torch's by {difference:.3g} at batch size "
                    f"{batch_size}, and its largest value is {scale:.3g}; more than {TOLERANCE:g} of that is not "
                    "rounding. Try another opset"
                )
            before = found.get(output, {"max_abs_difference": 0.0, "scale": 0.0, "relative_difference": 0.0})
            new = (difference, scale, difference / scale if scale else 0.0)
            found[output] = {key: max(value, now) for (key, value), now in zip(before.items(), new, strict=True)}
    return found


def _distance(expected: torch.Tensor, got: torch.Tensor) -> tuple[float, float]:
    if expected.shape != got.shape:
        return float("inf"), expected.abs().max().item()
    # max() drops no NaN, and a comparison with one is false.
    return (expected - got).abs().max().item(), expected.abs().max().item()


def check_suffix(path: str | Path, suffix: str) -> Path:
    """
    The path, with its folder made.

    Raises:
        ValueError: The name ends otherwise, or it is a folder.
    """
    path = Path(path)
    if path.suffix != suffix or path.is_dir():
        raise ValueError(f"{path} is no name for this file; give one that ends in {suffix}, not a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name to write to; the file gets its own name when the block ends without an error, and else it is removed."""
    partial = path.with_stem(f"{path.stem}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """
    Without log records below an error: exporter and quantizer report each step and each tensor that they leave alone.

    What they do wrong is found by [`compare_outputs`] and by the cost that is measured.
    """
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def require(feature: str, *packages: str) -> list[Any]:
    """
    Imports packages that only one feature needs.

    Args:
        feature (`str`): What needs them.
        packages (`str`): Their names, which are also those of their modules.

    Raises:
        ImportError: One is missing; the command that installs them is in the message.
    """
    modules = []
    for package in packages:
        try:
            modules.append(importlib.import_module(package))
        except ImportError as error:
            raise ImportError(
                f"{feature} needs {package} ({error}); install it with `pip install {' '.join(packages)}`"
            ) from error
    return modules


def size_mb(path: Path) -> float:
    """Size of a file in MB, of 10⁶ bytes."""
    return path.stat().st_size / 1e6
