"""Files of an IJB protocol and features that fit it, of any size, from a random generator."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv


@dataclass(frozen=True)
class ProtocolSize:
    """
    How much of everything there is, by default as in IJB-C, and how far the features of templates lie from the center of
    their person, in units of the distance between persons.
    """

    images: int = 469375
    templates: int = 23124
    gallery: int = 3531
    pairs: int = 15658489
    genuine: int = 19557
    embedding_size: int = 512
    noise: float = 2.0

    def scaled(self, scale: float) -> "ProtocolSize":
        """A smaller protocol, whose impostor pairs are still a quarter of all that there could be."""
        gallery, templates = max(4, int(self.gallery * scale)), max(24, int(self.templates * scale))
        grid = gallery * (templates - gallery)
        pairs = int(grid * self.pairs / (self.gallery * (self.templates - self.gallery)))
        genuine = int((templates - gallery) * 0.99)
        images = max(3 * templates, int(self.images * scale))
        return ProtocolSize(images, templates, gallery, pairs, genuine, self.embedding_size, self.noise)


SMALL = ProtocolSize(images=160, templates=40, gallery=12, pairs=200, genuine=25, embedding_size=8, noise=1.3)


def write_protocol(folder: Path, size: ProtocolSize = SMALL, *, name: str = "ijbc", seed: int = 0) -> np.ndarray:
    """
    Writes `meta/` and the features `features.npy`, and returns these as a memory map of shape
    `(num_images, 2 * embedding_size)`: those of the images and, on their right, of the mirror images.
    """
    generator = np.random.default_rng(seed)
    meta = folder / "meta"
    meta.mkdir(parents=True)
    probes = size.templates - size.gallery
    subjects = np.concatenate([np.arange(size.gallery), generator.integers(0, size.gallery, probes)])
    ids = generator.permutation(np.arange(1, 3 * size.templates))[: size.templates]
    template = _image_templates(size, generator)
    frames = generator.geometric(0.3, size.images)
    media = np.repeat(np.arange(size.images), frames)[: size.images] + 7
    order = generator.permutation(size.images)
    template, media = template[order], media[order]
    names = np.array([f"{number}.jpg" for number in range(1, size.images + 1)])
    _write(meta / f"{name}_face_tid_mid.txt", [names, ids[template], media])
    landmarks = np.array([38.3, 51.7, 73.5, 51.5, 56.0, 71.7, 41.5, 92.4, 70.7, 92.2])
    landmarks = (landmarks + generator.normal(0, 1, (size.images, 10))).round(3)
    scores = generator.uniform(0.5, 1, size.images).round(6)
    _write(meta / f"{name}_name_5pts_score.txt", [names, *landmarks.T, scores])
    _write_pairs(meta / f"{name}_template_pair_label.txt", size, subjects, ids, generator)
    _write_identification(meta, name, size, subjects, ids, template)
    return _write_features(folder / "features.npy", size, subjects, template, generator)


def _image_templates(size: ProtocolSize, generator: np.random.Generator) -> np.ndarray:
    """At least one image a template, most of them in few templates."""
    share = generator.gamma(0.35, 1.0, size.templates) + 1e-3
    extra = generator.multinomial(size.images - size.templates, share / share.sum())
    return np.repeat(np.arange(size.templates), extra + 1)


def _write_pairs(
    path: Path, size: ProtocolSize, subjects: np.ndarray, ids: np.ndarray, generator: np.random.Generator
) -> None:
    probes = size.templates - size.gallery
    genuine = generator.permutation(probes)[: size.genuine] + size.gallery
    impostors = size.pairs - len(genuine)
    grid = size.gallery * probes
    chosen = np.flatnonzero(generator.random(grid, dtype=np.float32) < 1.02 * impostors / (grid - probes) + 1e-3)
    chosen = chosen[subjects[chosen % probes + size.gallery] != chosen // probes]
    chosen = generator.permutation(chosen)[:impostors]
    assert len(chosen) == impostors, "too many pairs for so few templates"
    first = np.concatenate([subjects[genuine], chosen // probes])
    second = np.concatenate([genuine, chosen % probes + size.gallery])
    order = generator.permutation(len(first))
    label = (np.arange(len(first)) < len(genuine))[order].astype(np.int8)
    _write(path, [ids[first[order]], ids[second[order]], label])


def _write_identification(
    meta: Path,
    name: str,
    size: ProtocolSize,
    subjects: np.ndarray,
    ids: np.ndarray,
    template: np.ndarray,
) -> None:
    """One line an image, with headings, and more columns than the template and the person, as in the real files."""
    half = size.gallery // 2
    parts = (np.arange(half), np.arange(half, size.gallery), np.arange(size.gallery, size.templates))
    letter = "S" if name == "ijbb" else "G"
    for part, kind in zip(parts, (f"gallery_{letter}1", f"gallery_{letter}2", "probe_mixed"), strict=True):
        images = np.flatnonzero(np.isin(template, part))
        columns = (ids[template[images]].tolist(), (subjects[template[images]] + 100).tolist(), images.tolist())
        lines = (f'{row},{subject},"img/{image}, cut.jpg",1\n' for row, subject, image in zip(*columns, strict=True))
        path = meta / f"{name}_1N_{kind}.csv"
        path.write_text("TEMPLATE_ID,SUBJECT_ID,FILENAME,FACE_X\n" + "".join(lines))


def _write_features(
    path: Path, size: ProtocolSize, subjects: np.ndarray, template: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """A center a person, with noise of the template, of the image and of its mirror image."""
    width = size.embedding_size
    features = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(size.images, 2 * width))
    centers = generator.standard_normal((size.gallery, width), dtype=np.float32)[subjects]
    centers += size.noise * generator.standard_normal(centers.shape, dtype=np.float32)
    for start in range(0, size.images, 50000):
        rows = slice(start, start + 50000)
        plain = centers[template[rows]]
        plain += 1.5 * generator.standard_normal(plain.shape, dtype=np.float32)
        features[rows, :width] = plain
        features[rows, width:] = plain + 0.3 * generator.standard_normal(plain.shape, dtype=np.float32)
    features.flush()
    return features


def _write(path: Path, columns: list[np.ndarray]) -> None:
    table = pa.table({str(number): column for number, column in enumerate(columns)})
    options = pa.csv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none")
    pa.csv.write_csv(table, path, options)
