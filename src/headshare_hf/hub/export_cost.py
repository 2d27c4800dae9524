"""What a change of a model costs: accuracy, equal predictions and the angle between embeddings, before and after."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from ..data.dataset import collate
from ..evaluation import ClassificationCounts, Verifier, verification_metrics


def measure_cost(
    before: nn.Module, after: nn.Module, images: Dataset, *, verifier: Verifier | None = None, batch_size: int = 32
) -> dict[str, Any]:
    """
    Args:
        before (`nn.Module`): Its output has `embeddings`, and `logits` where it classifies; in evaluation mode.
        after (`nn.Module`): Likewise.
        images (`Dataset`): Items with `pixel_values`, and `labels` for an accuracy.
        verifier ([`Verifier`], *optional*): Sets of pairs to verify with both.
        batch_size (`int`, *optional*, defaults to 32): Images at a time.

    Returns:
        `dict[str, Any]`: `num_images`; `embedding_cosine` with `mean` and `min` over the images; with logits
        `agreement`, the share of images whose first class stays; with labels too, `before` and `after`, as
        [`ClassificationCounts.compute`] gives them; with `verifier` also `verification`, with `before` and `after` as
        [`verification_metrics`] names them.

    Raises:
        ValueError: There is no image.
    """
    cosines, agreements, counts = [], [], _Counts()
    for batch in _batches(images, batch_size):
        with torch.inference_mode():
            old, new = (model(pixel_values=batch["pixel_values"]) for model in (before, after))
        cosines.append(F.cosine_similarity(old.embeddings.double(), new.embeddings.double()))
        if "logits" in old:
            agreements.append(old.logits.argmax(dim=1) == new.logits.argmax(dim=1))
            counts.update(batch, old.logits, new.logits)
    if not cosines:
        raise ValueError("there is no image to measure the cost on; give a data set that is not empty")
    all_cosines = torch.cat(cosines)
    result: dict[str, Any] = {
        "num_images": len(all_cosines),
        "embedding_cosine": {"mean": all_cosines.mean().item(), "min": all_cosines.min().item()},
    }
    if agreements:
        result["agreement"] = torch.cat(agreements).double().mean().item()
    result.update(counts.compute())
    if verifier is not None:
        found = {name: verification_metrics(verifier(model)) for name, model in (("before", before), ("after", after))}
        result["verification"] = found
    return result


class _Counts:
    """Accuracy of both models, where the images have labels."""

    def __init__(self) -> None:
        self._counts: tuple[ClassificationCounts, ...] = ()

    def update(self, batch: dict[str, torch.Tensor], *logits: torch.Tensor) -> None:
        if "labels" not in batch:
            return
        self._counts = self._counts or tuple(ClassificationCounts(scores.shape[1]) for scores in logits)
        for counts, scores in zip(self._counts, logits, strict=True):
            counts.update(scores, batch["labels"])

    def compute(self) -> dict[str, dict[str, float]]:
        return {name: counts.compute() for name, counts in zip(("before", "after"), self._counts, strict=False)}


def _batches(images: Dataset, batch_size: int) -> Iterator[dict[str, torch.Tensor]]:
    yield from DataLoader(images, batch_size=batch_size, collate_fn=collate)


def evenly_spread(length: int, count: int) -> list[int]:
    """At most `count` of `length` rows from first to last, so that a set that is sorted by class gives every class."""
    # float32 cannot count beyond 2^24, and there are sets with more images of faces.
    return torch.linspace(0, length - 1, min(length, count), dtype=torch.float64).round().long().tolist()


class NoiseImages(Dataset):
    """
    Standard normal noise in the place of images.

    Args:
        length (`int`): How many.
        shape (`tuple[int, int, int]`): Channels, height and width.
    """

    def __init__(self, length: int, shape: tuple[int, int, int]) -> None:
        self._pixels = torch.randn(length, *shape, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": self._pixels[index]}
