"""
A training run with the teacher's outputs from its cache, against the same run with the teacher itself.

    python benchmarks/teacher_cache.py

First epochs of TH-KD as the trainer runs them: images of noise in memory, mirrored at random, augmented and normalized
for every batch, two views each in the cache. The losses of all steps must agree. The notes say how long the pass takes
that fills the cache, and after how many epochs it has paid for itself. Then the reading alone, of rows as a face teacher
leaves them: 512 numbers of float16, from memory-mapped files that are in the page cache, beside a matrix in memory.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL.Image
import torch
from harness import Case, agree, compare, parser, prepare, report
from steps import PLAIN, network, settle
from transformers import PrinterCallback

from headshare_hf import DistillationConfig, DistillationTrainer, HeadShareImageProcessor
from headshare_hf.data import ImageClassificationDataset
from headshare_hf.trainer.teacher_rows import RowShape, TeacherRows, TeacherRowsFolder


SIZE, BATCH_SIZE = 32, 64
PROCESSOR = HeadShareImageProcessor(size={"height": SIZE, "width": SIZE})
PAIRS = {"resnet32x4 to resnet8x4": ("resnet32x4", "resnet8x4"), "resnet56 to resnet20": ("resnet56", "resnet20")}
VARIANTS: dict[str, dict[str, Any]] = {
    "teacher run": {"cached": False},
    "teacher cached": {"cached": True},
    "teacher cached as float16": {"cached": True, "teacher_cache_dtype": "float16"},
}


def noise(num_images: int, num_labels: int) -> ImageClassificationDataset:
    """A training set in memory, with flips."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (num_images, SIZE, SIZE, 3), dtype=np.uint8)
    labels = datasets.ClassLabel(names=[f"class{number}" for number in range(num_labels)])
    features = datasets.Features(image=datasets.Image(decode=False), label=labels)
    columns = {"image": [PIL.Image.fromarray(image) for image in pixels], "label": np.arange(num_images) % num_labels}
    split = datasets.Dataset.from_dict(columns, features=features, split="train")
    return ImageClassificationDataset(split, PROCESSOR, augmentation="flip", training=True)


class Runs:
    """
    Short training runs that differ in nothing but where the teacher's outputs come from.

    Args:
        pair (`str`): Of `PAIRS`.
        folder (`Path`): For runs and caches.
        arguments (`argparse.Namespace`): Of the command line.
    """

    def __init__(self, pair: str, folder: Path, arguments: argparse.Namespace) -> None:
        self.num_images, self.num_labels = (32, 10) if arguments.quick else (arguments.images, 100)
        self.images = noise(self.num_images, self.num_labels)
        teacher, student = PAIRS[pair]
        self._student_name = student
        self._teacher = settle(network(teacher, self.num_labels, seed=2), SIZE)
        self._folder, self._device, self._count = folder, arguments.device, 0

    def trainer(self, cached: bool, **fields: Any) -> DistillationTrainer:
        """A run of one epoch, which can be run again and then goes on with the same student."""
        self._count += 1
        switches = {"channels_last": None, "fold_teacher": None, "logging_strategy": "steps", "logging_steps": 1}
        args = DistillationConfig(
            output_dir=str(self._folder / f"run{self._count}"),
            use_cpu=self._device == "cpu",
            method="th_kd",
            num_train_epochs=1,
            per_device_train_batch_size=min(BATCH_SIZE, self.num_images // 2),
            teacher_cache=str(self._folder / "cache") if cached else None,
            **{**PLAIN, **switches, **fields},
        )
        trainer = DistillationTrainer(
            network(self._student_name, self.num_labels, seed=1),
            args,
            teacher=self._teacher,
            train_dataset=self.images,
            processing_class=PROCESSOR,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer


def losses(trainer: DistillationTrainer) -> list[float]:
    """Trains an epoch; the loss of every step."""
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def fill(trainer: DistillationTrainer) -> float:
    """Seconds of the pass that fills the cache."""
    start = time.perf_counter()
    trainer.get_train_dataloader()
    return time.perf_counter() - start


def run_pair(pair: str, folder: Path, arguments: argparse.Namespace) -> None:
    """One table of epochs."""
    runs = Runs(pair, folder, arguments)
    trainers = {name: runs.trainer(**variant) for name, variant in VARIANTS.items()}
    plain, *cached = VARIANTS
    seconds = {name: fill(trainers[name]) for name in cached}
    expected = losses(trainers[plain])
    # Rows in float16 change a loss by 1e-5, and training amplifies that.
    agreement = {
        name: agree(f"losses of {name}", losses(trainers[name]), expected, 1e-2 if "float16" in name else 1e-5)
        for name in cached
    }
    rows = compare([Case(name, trainer.train) for name, trainer in trainers.items()], arguments.rounds)
    times = {row.name: row.median_s for row in rows}
    saved = times[plain] - times["teacher cached"]
    epochs = math.ceil(seconds["teacher cached"] / saved) if saved > 0 else math.inf
    notes = [
        f"one epoch of {runs.num_images} images; difference: of the losses of all its steps",
        f"the pass over two views of each image took {seconds['teacher cached']:.1f} s, which {epochs} epochs save again",
    ]
    title = f"TH-KD epoch with a teacher cache, {pair}, batch {BATCH_SIZE}, {SIZE} pixels, flip"
    columns = {"bytes a view": {name: float(trainers[name]._rows.shape.row_bytes) for name in cached}}
    report(f"cache_{PAIRS[pair][1]}", title, rows, agreement, {}, arguments, notes, columns)


def run_reading(folder: Path, arguments: argparse.Namespace) -> None:
    """The table of reading."""
    shape = RowShape(20_000 if arguments.quick else 100_000, 2, 512, "float16")
    parts = TeacherRowsFolder(folder / "faces", {}, shape)
    random = np.random.default_rng(0)
    block = random.standard_normal((shape.part_images, shape.views, shape.width), dtype=np.float32).astype(np.float16)
    for part in parts.missing():
        parts.write(part, block[: len(part)])
    rows = TeacherRows(parts.folder, shape)
    matrix = torch.from_numpy(np.concatenate([block[: len(part)] for part in shape.parts])).view(-1, shape.width)
    batches = [(torch.randint(shape.images, (256,)), torch.randint(shape.views, (256,))) for _ in range(40)]
    agreement = {
        "memory-mapped files": agree(
            "rows",
            torch.cat([rows.read(*batch) for batch in batches]).float(),
            torch.cat([matrix[index * shape.views + view] for index, view in batches]).float(),
            0.0,
        )
    }
    cases = [
        Case("matrix in memory", lambda: [matrix[index * shape.views + view] for index, view in batches]),
        Case("memory-mapped files", lambda: [rows.read(*batch) for batch in batches]),
    ]
    measured = compare(cases, arguments.rounds, per=256 * len(batches))
    notes = [
        f"{len(shape.parts)} files of {shape.part_images} images; the rows of MS1MV3 (5,179,510 images) take "
        f"{5_179_510 * shape.row_bytes / 1e9:.1f} GB a view, and its logits over 93,431 classes would take "
        f"{5_179_510 * 93_431 * 2 / 1e9:.0f} GB",
    ]
    title = f"Reading rows of 512 float16 at random, of {shape.images} images in two views"
    # A microsecond an image.
    limits = {"median_s": {"memory-mapped files": 1e-6}}
    report("cache_reading", title, measured, agreement, {}, arguments, notes, limits=limits)


def main() -> None:
    """All tables."""
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=320, help="images of an epoch")
    arguments = options.parse_args()
    prepare(arguments)
    for pair in PAIRS:
        with tempfile.TemporaryDirectory() as folder:
            run_pair(pair, Path(folder), arguments)
    with tempfile.TemporaryDirectory() as folder:
        run_reading(Path(folder), arguments)


if __name__ == "__main__":
    main()
