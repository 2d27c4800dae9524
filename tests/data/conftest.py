"""Tiny images for the tests of this folder."""

import io
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest


def encode(pixels: np.ndarray, mode: str | None = None, kind: str = "PNG") -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image = PIL.Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, kind)
    return buffer.getvalue()


def random_pixels(number: int, height: int = 32, width: int = 32) -> np.ndarray:
    """An image of noise that depends on its number alone."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def pixels():
    """Function `(number, height, width)` to an array of shape `(height, width, 3)`."""
    return random_pixels


@pytest.fixture
def png():
    """Function `(pixels, mode)` to the bytes of a PNG file."""
    return encode


@pytest.fixture
def make_split():
    """Function `(count, names, split, **columns)` to a data set as `load_splits` returns it, but for `row`."""

    def make(count: int = 12, names: tuple[str, ...] = ("a", "b", "c"), split: str = "train", **columns):
        images = [{"bytes": encode(random_pixels(number)), "path": f"{number}.png"} for number in range(count)]
        labels = [number % len(names) for number in range(count)]
        features = datasets.Features(image=datasets.Image(decode=False), label=datasets.ClassLabel(names=list(names)))
        data = {"image": columns.get("image", images), "label": columns.get("label", labels)}
        return datasets.Dataset.from_dict(data, features=features, split=datasets.NamedSplit(split))

    return make


@pytest.fixture
def write_folder(tmp_path):
    """Function `{"train": data set, ...}` to a folder with one parquet file for each split."""

    def write(splits: dict[str, datasets.Dataset]):
        for name, dataset in splits.items():
            dataset.to_parquet(tmp_path / f"{name}-00000-of-00001.parquet")
        return tmp_path

    return write


@pytest.fixture
def write_images(tmp_path):
    """Function `("train/cat/1.png", ...)` to a folder with these image files."""

    def write(*names: str):
        for number, name in enumerate(names):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(random_pixels(number, 8, 8)))
        return tmp_path

    return write


@pytest.fixture
def repository():
    """Root of the repository."""
    return Path(__file__).parents[2]
