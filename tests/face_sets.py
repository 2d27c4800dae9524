"""Small models, pairs and IJB crops for the tests of whole evaluations."""

from pathlib import Path

import numpy as np
import PIL.Image
from toys import resnet

from headshare_hf import HeadShareImageProcessor
from headshare_hf.data import load_verification_set, write_verification_bin


NUM_PEOPLE, IMAGES_EACH, NUM_FOLDS, PAIRS_OF_A_KIND = 16, 3, 10, 10


def save_model(folder: Path, **fields) -> Path:
    """A face model with random weights and its image processor, in a folder."""
    resnet(head_type="arcface", **fields).save_pretrained(folder)
    HeadShareImageProcessor(channel_order="bgr").save_pretrained(folder)
    return folder


def write_people(folder: Path, seed: int = 0) -> Path:
    """Image files `person/person_0001.png`, alike for one person, and a `pairs.txt` with ten folds of 20 pairs."""
    generator = np.random.default_rng(seed)
    names = [f"person{number}" for number in range(NUM_PEOPLE)]
    for name in names:
        (folder / name).mkdir(parents=True)
        face = generator.integers(40, 216, (32, 32, 3))
        for number in range(1, IMAGES_EACH + 1):
            pixels = (face + generator.integers(-40, 40, face.shape)).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(folder / name / f"{name}_{number:04d}.png")
    lines = [f"{NUM_FOLDS}\t{PAIRS_OF_A_KIND}"]
    for _ in range(NUM_FOLDS):
        for _ in range(PAIRS_OF_A_KIND):
            a, b = generator.choice(IMAGES_EACH, 2, replace=False) + 1
            lines.append(f"{generator.choice(names)}\t{a}\t{b}")
        for _ in range(PAIRS_OF_A_KIND):
            one, other = generator.choice(names, 2, replace=False)
            a, b = generator.integers(1, IMAGES_EACH + 1, 2)
            lines.append(f"{one}\t{a}\t{other}\t{b}")
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_bin(path: Path, people: Path) -> Path:
    """The pairs of [`write_people`] as a `.bin` file."""
    return write_verification_bin(path, load_verification_set(people))


def write_crops(folder: Path, num_images: int) -> None:
    """The images `1.jpg`, `2.jpg`, ... of an IJB protocol."""
    (folder / "loose_crop").mkdir()
    generator = np.random.default_rng(0)
    for number in range(1, num_images + 1):
        pixels = generator.integers(0, 256, (120, 110, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / "loose_crop" / f"{number}.jpg")
