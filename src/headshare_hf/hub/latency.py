"""How long networks take on this machine, measured side by side in one run."""

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..models.backbone_face import height_and_width


@dataclass(frozen=True, eq=False)
class LatencyEntry:
    """
    A network to measure.

    Attributes:
        model (`nn.Module`): Called with a batch of images; on the CPU. E.g. a model of transformers, or an [`OnnxModel`].
        image_size (`int` or `list[int]`): Height and width of its images in pixels.
        num_channels (`int`, *optional*, defaults to 3): Channels of its images.
    """

    model: nn.Module
    image_size: int | list[int] | tuple[int, int]
    num_channels: int = 3


@dataclass(frozen=True)
class LatencyRow:
    """
    One network at one batch size. Times are of a whole batch, in milliseconds.

    Attributes:
        name (`str`): Of the entry.
        batch_size (`int`): Images at a time.
        median_ms (`float`): Median over the repetitions.
        low_ms (`float`): First quartile.
        high_ms (`float`): Third quartile.
        images_per_second (`float`): From the median.
        speedup (`float`): Median over the repetitions of the first entry's time divided by this one's.
    """

    name: str
    batch_size: int
    median_ms: float
    low_ms: float
    high_ms: float
    images_per_second: float
    speedup: float


@dataclass(frozen=True)
class LatencyTable:
    """
    Attributes:
        hardware (`str`): The processor.
        threads (`int`): Threads of every network.
        torch (`str`): Version of torch.
        repeats (`int`): Repetitions that the medians are of.
        measured (`str`): Which part of the networks.
        rows (`tuple[LatencyRow, ...]`): In the order of the batch sizes, and then of the entries.
    """

    hardware: str
    threads: int
    torch: str
    repeats: int
    measured: str
    rows: tuple[LatencyRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    def to_markdown(self) -> str:
        """A table, and below it on what it was measured."""
        first = self.rows[0].name
        headings = ["network", "batch", "ms, median [quartiles]", "images/s", f"speed-up over {first}"]
        lines = [f"| {' | '.join(headings)} |", "| --- | ---: | ---: | ---: | ---: |"]
        lines += [
            f"| {row.name} | {row.batch_size} | {row.median_ms:.2f} [{row.low_ms:.2f}, {row.high_ms:.2f}] | "
            f"{row.images_per_second:.0f} | {row.speedup:.2f} |"
            for row in self.rows
        ]
        note = (
            f"{self.hardware}, {self.threads} thread{'s' if self.threads > 1 else ''}, torch {self.torch}; "
            f"{self.repeats} repetitions, the networks in turn within each. Measured: {self.measured}."
        )
        return "\n".join([*lines, "", note]) + "\n"


def latency_table(
    entries: Mapping[str, LatencyEntry],
    batch_sizes: Sequence[int] = (1, 32),
    *,
    repeats: int = 20,
    warmup: int = 3,
    measured: str = "the networks as given",
) -> LatencyTable:
    """
    Measures networks on noise. In every repetition each of them runs once, one after the other, so that whatever else
    the machine does at the time slows down all of them. Every network has `torch.get_num_threads()` threads.

    Args:
        entries (`Mapping[str, LatencyEntry]`): By name; the first one is what speed-ups refer to.
        batch_sizes (`Sequence[int]`, *optional*, defaults to `(1, 32)`): Images at a time.
        repeats (`int`, *optional*, defaults to 20): Repetitions.
        warmup (`int`, *optional*, defaults to 3): Repetitions before, which are not counted.
        measured (`str`, *optional*): Which part of the networks the entries are, for the table to tell.

    Returns:
        [`LatencyTable`].

    Raises:
        ValueError: There is no entry or batch size, a number is not positive, or a network is in training mode.
    """
    if not entries or not batch_sizes:
        raise ValueError("there is nothing to measure; give at least one entry and one batch size")
    if min(batch_sizes) < 1 or repeats < 1 or warmup < 0:
        raise ValueError(
            f"`batch_sizes` are {tuple(batch_sizes)}, `repeats` {repeats} and `warmup` {warmup}; the first two must be "
            "at least 1, and the last not negative"
        )
    for name, entry in entries.items():
        # A loaded program of torch.export is a graph that was fixed in evaluation mode, whatever it says.
        if entry.model.training and not isinstance(entry.model, torch.fx.GraphModule):
            raise ValueError(f"{name} is in training mode; call its `eval()` first")
    rows: list[LatencyRow] = []
    for batch_size in batch_sizes:
        times = _measure(list(entries.values()), batch_size, repeats, warmup)
        rows += [_row(name, batch_size, own, times[0]) for name, own in zip(entries, times, strict=True)]
    return LatencyTable(_processor(), torch.get_num_threads(), torch.__version__, repeats, measured, tuple(rows))


def _measure(entries: Sequence[LatencyEntry], batch_size: int, repeats: int, warmup: int) -> np.ndarray:
    """Seconds, of shape `(num_entries, repeats)`."""
    images = [torch.randn(batch_size, entry.num_channels, *height_and_width(entry.image_size)) for entry in entries]
    seconds = np.empty((len(entries), warmup + repeats))
    with torch.inference_mode():
        for repetition in range(warmup + repeats):
            for number, (entry, pixels) in enumerate(zip(entries, images, strict=True)):
                start = time.perf_counter()
                entry.model(pixels)
                seconds[number, repetition] = time.perf_counter() - start
    return seconds[:, warmup:]


def _row(name: str, batch_size: int, seconds: np.ndarray, first: np.ndarray) -> LatencyRow:
    low, median, high = (float(value) * 1e3 for value in np.quantile(seconds, (0.25, 0.5, 0.75)))
    return LatencyRow(
        name, batch_size, median, low, high, 1e3 * batch_size / median, float(np.median(first / seconds))
    )


def _processor() -> str:
    """Name and cores of the processor, as well as the system tells them."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name} ({platform.machine()}, {os.cpu_count()} cores)"
