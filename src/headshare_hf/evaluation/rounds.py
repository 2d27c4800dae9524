"""Computing something of every image of a data set by all processes, part by part."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from ..data.dataset import collate


def compute_rows(
    compute: Callable[[torch.Tensor], torch.Tensor],
    dataset: Dataset,
    parts: list[range],
    accelerator: Accelerator,
    batch_size: int,
    num_workers: int = 0,
) -> Iterator[tuple[range, np.ndarray]]:
    """
    Goes through parts of a data set, each process with its share of every batch.

    Args:
        compute (`Callable`): From the `pixel_values` of a batch, on the accelerator's device, to one row for each image.
        dataset (`Dataset`): Map-style; its items or, from `__getitems__`, batches have `pixel_values`.
        parts (`list[range]`): Which images. No batch goes across two parts, so that it is the same batch when only some
            of the parts are left.
        accelerator (`accelerate.Accelerator`): Knows the processes.
        batch_size (`int`): Images at a time in every process.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode images, for every process that computes.

    Yields:
        `tuple[range, np.ndarray]`: Consecutive images and their rows, `float32`, in every process.

    Raises:
        ValueError: The data set gives no `pixel_values`.
    """
    rounds = _rounds(parts, batch_size * accelerator.num_processes)
    loader = _loader(dataset, _shares(rounds, accelerator), num_workers, accelerator)
    for block, rows in zip(rounds, _one_behind(_compute_all(compute, loader, accelerator)), strict=True):
        yield block, rows[: len(block)].cpu().numpy()


def _rounds(parts: list[range], size: int) -> list[range]:
    """What all processes together do at a time."""
    return [part[start : start + size] for part in parts for start in range(0, len(part), size)]


def _shares(rounds: list[range], accelerator: Accelerator) -> list[list[int]]:
    """The images of this process in every round: as many in each process, the last one repeated where they run out."""
    shares = []
    for rows in rounds:
        size = -(-len(rows) // accelerator.num_processes)
        first = accelerator.process_index * size
        shares.append([rows[min(place, len(rows) - 1)] for place in range(first, first + size)])
    return shares


def _loader(dataset: Dataset, batches: list[list[int]], num_workers: int, accelerator: Accelerator) -> DataLoader:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=accelerator.device.type == "cuda",
        # A loader draws a number even where it shuffles nothing; those of a training around it stay as they are.
        generator=torch.Generator(),
    )


def _compute_all(
    compute: Callable[[torch.Tensor], torch.Tensor], loader: DataLoader, accelerator: Accelerator
) -> Iterator[torch.Tensor]:
    for batch in loader:
        if "pixel_values" not in batch:
            raise ValueError(f"the data set gives {', '.join(batch)} but no `pixel_values`; prepare the images first")
        rows = compute(batch["pixel_values"].to(accelerator.device, non_blocking=True))
        yield accelerator.gather(rows.float().contiguous())


def _one_behind(values: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Each value after the next one was asked for, so that a device computes while the value before is copied."""
    previous = None
    for value in values:
        if previous is not None:
            yield previous
        previous = value
    if previous is not None:
        yield previous
