"""Short distillations with a teacher cache, which tests of it share."""

from pathlib import Path

import datasets
import numpy as np
import PIL.Image
from toys import NUM_LABELS, arguments, losses, resnet

from headshare_hf import DistillationTrainer, HeadShareImageProcessor
from headshare_hf.data import ImageClassificationDataset


CROPS = {"augmentation": "crop_flip", "augmentation_views": 3}
MOMENTS = {"kd_weight": 0.0, "teacher_head_weight": 1.5, "chunked_losses": True, "max_steps": 6}
PROCESSOR = HeadShareImageProcessor(size={"height": 16, "width": 16})


def drawings(length: int = 40, seed: int = 0) -> datasets.Dataset:
    """Images of noise on a color of their class, in memory."""
    random = np.random.default_rng(seed)
    casts = np.random.default_rng(99).integers(0, 128, (NUM_LABELS, 3))
    labels = [number % NUM_LABELS for number in range(length)]
    pixels = [(random.integers(0, 128, (20, 20, 3)) + casts[label]).astype(np.uint8) for label in labels]
    features = datasets.Features(
        image=datasets.Image(decode=False), label=datasets.ClassLabel(names=[f"class{n}" for n in range(NUM_LABELS)])
    )
    images = [PIL.Image.fromarray(image) for image in pixels]
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features, split="train")


def images(split=None, augmentation: str = "flip", seed: int = 3, **options) -> ImageClassificationDataset:
    """A training set."""
    split = drawings() if split is None else split
    return ImageClassificationDataset(split, PROCESSOR, augmentation=augmentation, training=True, seed=seed, **options)


def cached_trainer(
    folder: Path, cache: Path | None, data=None, teacher=None, student=None, eval_dataset=None, **fields
) -> DistillationTrainer:
    """A run of TH-KD that has not begun; without a cache where there is none."""
    defaults = {"method": "th_kd", "num_train_epochs": 4, "per_device_train_batch_size": 20}
    return DistillationTrainer(
        resnet(seed=1) if student is None else student,
        arguments(folder, teacher_cache=None if cache is None else str(cache), **{**defaults, **fields}),
        teacher=resnet("resnet14", seed=2) if teacher is None else teacher,
        train_dataset=images() if data is None else data,
        eval_dataset=eval_dataset,
        processing_class=PROCESSOR,
    )


def second_run(tmp_path, **changes) -> DistillationTrainer:
    """A run of one step that finds the cache of an earlier one."""
    return cached_trainer(tmp_path / "second", tmp_path / "cache", **{"max_steps": 1, **changes})


def folders(cache: Path) -> list[Path]:
    """Of all caches in it."""
    return sorted(path for path in cache.iterdir() if path.is_dir())


def forbid_running(trainer: DistillationTrainer) -> DistillationTrainer:
    """The teacher's network, classifier apart, may not compute any more."""

    def refuse(module, args, kwargs=None):
        raise AssertionError("the teacher was run")

    base = trainer.teacher.model.base_model
    assert base is not trainer.teacher.model
    base.register_forward_pre_hook(refuse)
    return trainer


def train(trainer: DistillationTrainer) -> list[float]:
    """The loss of every step."""
    trainer.train()
    return losses(trainer)
