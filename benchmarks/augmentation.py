"""
Augmented and normalized batches of small images: the whole batch at once, against one PIL image after another.

    python benchmarks/augmentation.py

First the augmentation alone (crop from 4 pixels of padding, flip, normalization) of images in memory, then everything
that a data loader asks of a data set: items and collation. With the same draws, both sides give the same pixels. Images
are prepared on the CPU, for workers of a data loader; where `--device` is another, the time includes the way there. The
second table also has what two workers copy of a set that is kept in memory, which must be a small part of it. The third
one has what it saves to keep decoded images, in memory or in memory-mapped files.
"""

import argparse
import io
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from harness import Case, agree, compare, parser, prepare, report
from PIL import Image as PilImage
from torch.utils.data import DataLoader, default_collate
from torchvision import transforms
from torchvision.transforms import functional as images_as

from headshare_hf import HeadShareImageProcessor
from headshare_hf.data import ImageClassificationDataset, collate
from headshare_hf.data.randomness import random_integers
from headshare_hf.data.transforms import BATCH_AUGMENTATIONS, BatchAugmentation, Normalizer


MEAN, STD, SIZE, PADDING, BATCH_SIZE = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), 32, 4, 64
# What workers may copy of a set in memory. The rest of it they read where it is.
COPIED, LARGEST_COPY = "MB copied by two workers", 0.25
NAMES = [str(label) for label in range(100)]


def processor(size: int = SIZE) -> HeadShareImageProcessor:
    """Of the network that the images are for."""
    return HeadShareImageProcessor(size={"height": size, "width": size}, image_mean=list(MEAN), image_std=list(STD))


class PilImages(torch.utils.data.Dataset):
    """Images in memory, turned into PIL images and augmented one by one, as in torchvision's own data sets."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.pixels, self.labels = pixels, labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(SIZE, padding=PADDING),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> dict:
        image = self.transform(PilImage.fromarray(self.pixels[row]))
        return {"pixel_values": image, "labels": self.labels[row], "index": row}


def pil_with_draws(pixels: np.ndarray, rows: np.ndarray, augmentation: BatchAugmentation, epoch: int) -> torch.Tensor:
    """What the PIL operations make of the draws of the batch augmentation."""
    tops, lefts = (random_integers(2 * PADDING + 1, augmentation.seed, epoch, rows, stream) for stream in (0, 1))
    flips = augmentation.view_numbers(rows, epoch)
    batch = []
    for row, top, left, flip in zip(rows, tops, lefts, flips, strict=True):
        image = images_as.pad(PilImage.fromarray(pixels[row]), PADDING)
        image = images_as.crop(image, int(top), int(left), SIZE, SIZE)
        image = images_as.hflip(image) if flip else image
        batch.append(images_as.normalize(images_as.to_tensor(image), MEAN, STD))
    return torch.stack(batch)


def as_dataset(pixels: np.ndarray, labels: np.ndarray, encoding: str = "PNG") -> Dataset:
    """The images as a data set of files."""
    features = Features({"image": Image(), "label": ClassLabel(names=NAMES), "row": Value("int64")})
    encoded = [{"bytes": as_file(image, encoding), "path": None} for image in pixels]
    return Dataset.from_dict({"image": encoded, "label": labels, "row": np.arange(len(labels))}, features=features)


def as_file(image: np.ndarray, encoding: str) -> bytes:
    """The content of an image file."""
    content = io.BytesIO()
    PilImage.fromarray(image).save(content, encoding)
    return content.getvalue()


def augmentation_alone(pixels: np.ndarray, batches: list[np.ndarray], arguments: argparse.Namespace) -> None:
    """The first table."""
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    augmentation, normalize = BatchAugmentation(BATCH_AUGMENTATIONS["crop_flip"], seed=0), Normalizer(processor())
    plain, device = PilImages(pixels, np.zeros(len(pixels), dtype=np.int64)), arguments.device

    def batched(rows: np.ndarray, epoch: int = 0) -> torch.Tensor:
        return normalize(augmentation(images[torch.from_numpy(rows)], rows, epoch))

    found = torch.cat([batched(rows, epoch) for epoch, rows in enumerate(batches)])
    expected = [pil_with_draws(pixels, rows, augmentation, epoch) for epoch, rows in enumerate(batches)]
    difference = agree("pixels", found, torch.cat(expected), 1e-6)
    cases = [
        Case(
            "PIL, image by image",
            lambda: [torch.stack([plain[row]["pixel_values"] for row in rows]).to(device) for rows in batches],
        ),
        Case("batch", lambda: [batched(rows).to(device) for rows in batches]),
    ]
    rows = compare(cases, arguments.rounds, per=sum(map(len, batches)))
    title = f"Crop, flip and normalization, {SIZE} pixels, per image"
    report("augmentation", title, rows, {"batch": difference}, {"batch": 7}, arguments)


def whole_items(pixels: np.ndarray, batches: list[np.ndarray], arguments: argparse.Namespace) -> None:
    """The second table."""
    labels = np.arange(len(pixels)) % len(NAMES)
    plain = PilImages(pixels, labels)
    ours = ImageClassificationDataset(
        as_dataset(pixels, labels), processor(), augmentation="crop_flip", training=True, with_index=True
    )
    for rows in np.array_split(np.arange(len(pixels)), 10):
        ours.__getitems__(rows)
    cases = [
        Case(
            "items of PIL images, default_collate",
            lambda: [moved(default_collate([plain[r] for r in b]), arguments.device) for b in batches],
        ),
        Case("batch from memory", lambda: [moved(collate(ours.__getitems__(b)), arguments.device) for b in batches]),
    ]
    augmentation = BatchAugmentation(BATCH_AUGMENTATIONS["crop_flip"], seed=0)
    found = ours.__getitems__(batches[0])["pixel_values"]
    difference = agree("pixels of items", found, pil_with_draws(pixels, batches[0], augmentation, 0), 1e-6)
    rows = compare(cases, arguments.rounds, per=sum(map(len, batches)))
    title = f"Whole items and collation, {SIZE} pixels, per image"
    notes, columns, limits = workers(arguments) if Path("/proc/self/smaps_rollup").exists() else ([], {}, {})
    report("items", title, rows, {"batch from memory": difference}, {}, arguments, notes, columns, limits)


def kept_images(arguments: argparse.Namespace) -> None:
    """The third table."""
    count, size = (64, 16) if arguments.quick else (2000, 112)
    # Smooth, as photographs are: a file of noise takes longer to decode than they do.
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    pixels = np.stack([np.asarray(PilImage.fromarray(image).resize((size, size))) for image in coarse])
    files = as_dataset(pixels, np.arange(count) % len(NAMES), "JPEG")
    batches = np.array_split(np.arange(count), math.ceil(count / BATCH_SIZE))

    def images(**options: Any) -> ImageClassificationDataset:
        return ImageClassificationDataset(files, processor(size), augmentation="crop_flip", training=True, **options)

    def read(dataset: ImageClassificationDataset) -> list[dict[str, torch.Tensor]]:
        return [moved(collate(dataset.__getitems__(rows)), arguments.device) for rows in batches]

    with tempfile.TemporaryDirectory() as folder:
        sets = {
            "decoded every time": images(cache_images=False),
            "kept in memory": images(),
            "memory-mapped": images(image_cache=folder),
        }
        found = {name: torch.cat([batch["pixel_values"] for batch in read(dataset)]) for name, dataset in sets.items()}
        later, expected = "memory-mapped, when a later run begins", found.pop("decoded every time")
        found[later] = torch.cat([batch["pixel_values"] for batch in read(images(image_cache=folder))])
        agreement = {name: agree(f"pixels of images {name}", pixels, expected, 0) for name, pixels in found.items()}
        del found, expected
        cases = [Case(name, lambda dataset=dataset: read(dataset)) for name, dataset in sets.items()]
        cases.append(Case(later, lambda: read(images(image_cache=folder))))
        rows = compare(cases, arguments.rounds, per=count)
    title = f"Whole items of {count} JPEG files and collation, {size} pixels, per image"
    notes = ["a later run checks every image that it finds against its checksum, once"]
    report("image_cache", title, rows, agreement, {}, arguments, notes)


def moved(batch: dict[str, torch.Tensor], device: str) -> dict[str, torch.Tensor]:
    """A batch on a device."""
    return {name: value.to(device) for name, value in batch.items()}


def workers(arguments: argparse.Namespace) -> tuple[list[str], dict, dict]:
    """
    What two workers copy of a set that this process holds in memory, after they have read it twice: notes, a column and
    its limit.

    Raises:
        SystemExit: It is much of the set.
    """
    count, size = (200, 16) if arguments.quick else (6000, 112)
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    dataset = ImageClassificationDataset(
        as_dataset(pixels, np.arange(count) % len(NAMES)), processor(size), augmentation="crop_flip", training=True
    )
    megabytes = math.prod(pixels.shape) / 1e6
    del pixels
    # A page of shared memory that one process alone has touched would count as its own.
    for rows in np.array_split(np.arange(count), 10):
        dataset.__getitems__(rows)
    # Small batches: their own memory is private to the worker that makes them, and no copy of the set.
    loader = DataLoader(dataset, 16, shuffle=True, num_workers=2, persistent_workers=True, collate_fn=collate)
    before, after = memory_of_workers(loader)
    copied, limit = after["Private_Dirty"] - before["Private_Dirty"], LARGEST_COPY * megabytes
    if copied > limit and not arguments.quick:
        raise SystemExit(f"two workers copied {copied:.0f} MB of a set of {megabytes:.0f} MB, more than {limit:.0f}")
    notes = [
        f"workers: of a set of {megabytes:.0f} MB of decoded images, which the process that starts them holds; after two passes "
        f"{copied:.0f} MB more are private to both together, and their proportional share, of what all three share a third, is "
        f"{after['Pss'] - before['Pss']:.0f} MB more"
    ]
    return notes, {COPIED: {"batch from memory": copied}}, {COPIED: {"batch from memory": limit}}


def memory_of_workers(loader: DataLoader) -> list[dict[str, float]]:
    """MB by kind, of all workers together: before they read, and after two passes."""
    found = []
    for passes in (0, 2):
        for _ in range(passes):
            for _ in loader:
                pass
        found.append({"Pss": 0.0, "Private_Dirty": 0.0})
        for worker in iter(loader)._workers:
            for line in Path(f"/proc/{worker.pid}/smaps_rollup").read_text().splitlines():
                key, _, value = line.partition(":")
                if key in found[-1]:
                    found[-1][key] += int(value.split()[0]) * 1024 / 1e6
    return found


def main() -> None:
    """All tables."""
    arguments = parser(__doc__).parse_args()
    prepare(arguments)
    random = np.random.default_rng(0)
    count, number = (200, 2) if arguments.quick else (20_000, 10)
    pixels = random.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    batches = [random.integers(0, count, BATCH_SIZE) for _ in range(number)]
    os.environ.setdefault("HF_DATASETS_CACHE", tempfile.mkdtemp())
    augmentation_alone(pixels, batches, arguments)
    whole_items(pixels, batches, arguments)
    kept_images(arguments)


if __name__ == "__main__":
    main()
