"""A comparison of seconds, on a folder of random images."""

from pathlib import Path

import numpy as np
from PIL import Image

from headshare_hf.trainer.comparison import Comparison
from headshare_hf.trainer.comparison_cells import Judging, run_cell


def image_folder(folder: Path, classes: str = "abc", seed: int = 0) -> Path:
    """Images of 16 x 16 pixels, whose class is a color cast: 8 of each to train on, 4 to test."""
    random = np.random.RandomState(seed)
    for number, name in enumerate(classes):
        for split, count in (("train", 8), ("test", 4)):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.randint(0, 128, (16, 16, 3), dtype=np.uint8)
                pixels[..., number % 3] += 100
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


def comparison(images: Path, **changes) -> Comparison:
    """Two rows and SH-KD, two epochs each."""
    content = {
        "data": {"name": str(images), "image_size": 16, "validation_fraction": 0.25},
        "student": {"backbone": "resnet8"},
        "teacher": {"backbone": "resnet8"},
        "training": {
            "num_train_epochs": 2,
            "per_device_train_batch_size": 6,
            "use_cpu": True,
            "disable_tqdm": True,
            "logging_strategy": "epoch",
        },
        "methods": {
            "alone": {"method": "plain"},
            "kd": {"method": "kd"},
            "sh": {"method": "sh_kd", "temporary_student": "kd"},
        },
        "baseline": "kd",
        "seeds": [0],
    }
    return Comparison(**{**content, **changes})


def judging(found: Comparison, output: Path, code: str = "1") -> Judging:
    return Judging(found.test_split, found.teacher_section(output), code)


def run_all(found: Comparison, output: Path, rows=None, seeds=None) -> dict[str, dict]:
    """Runs cells in this process; what they give, by name."""
    cells = found.cells(output, rows, seeds)
    return {cell.name: run_cell(cell, output, judging(found, output)) for cell in cells}
