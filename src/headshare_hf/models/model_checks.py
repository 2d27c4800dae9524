"""What converting, exporting and publishing refuse of a model."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch


def check_finite(weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """
    Refuses NaN and infinite values.

    Args:
        weights (`Iterable[tuple[str, torch.Tensor]]`): Names and tensors; each tensor is let go before the next one.

    Raises:
        ValueError: A tensor has one; all such tensors are named.
    """
    broken = [name for name, tensor in weights if not _is_finite(tensor)]
    if broken:
        raise ValueError(
            f"NaN or infinite values in {', '.join(broken)}; the training diverged, take an earlier checkpoint"
        )


def _is_finite(tensor: torch.Tensor) -> bool:
    if tensor.dtype == torch.float4_e2m1fn_x2:
        # It has neither NaN nor infinity, and torch converts it to nothing.
        return True
    if tensor.is_floating_point() and tensor.itemsize == 1:
        # torch neither sums nor compares floats of 8 bits.
        tensor = tensor.float()
    # No sum loses a NaN or an infinity, and it takes a thirtieth of the time; that of large numbers may overflow.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def check_channels(processor: Mapping[str, Any], num_channels: Any) -> None:
    """
    Refuses an image processor that makes images of other channels than its model reads.

    Args:
        processor (`Mapping[str, Any]`): The image processor's fields, as its file has them. Its `image_mean` has one value
            a channel; what is no list tells no number, and neither do statistics that are not read.
        num_channels (`Any`): Of the model's configuration; `None` where that does not say it.

    Raises:
        ValueError: The numbers differ; names both fields.
    """
    # Others keep statistics that they do not read; [`HeadShareImageProcessor`] brings images to as many channels always.
    if processor.get("do_normalize") is False and "channel_order" not in processor:
        return
    image_mean = processor.get("image_mean")
    if isinstance(image_mean, (list, tuple)) and num_channels not in (None, len(image_mean)):
        raise ValueError(
            f"the image processor makes {len(image_mean)} channels and the model reads {num_channels}, by `image_mean` and "
            "`num_channels`; give the processor that belongs to the model"
        )
