"""The IJB-B and IJB-C protocols, read from their files: templates, pairs, galleries and probes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from .ijb_tables import line_error, read_leading_integers, read_table


# Images, templates and pairs of the published 1:1 protocols.
OFFICIAL_SIZES = {"ijbb": (227630, 12115, 8010270), "ijbc": (469375, 23124, 15658489)}
# The two galleries of the 1:N protocols have other names in the one than in the other.
GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}

_LANDMARKS = [f"{axis}{number}" for number in range(1, 6) for axis in "xy"]


@dataclass(frozen=True, eq=False)
class IjbProtocol:
    """
    Images, templates and pairs of the 1:1 protocol of IJB-B or IJB-C, in the layout that insightface distributes. A
    template is a set of images and video frames of one person; frames of one video share a media number.

    Templates are referred to by their row in `template_ids`.

    Args:
        name (`str`): `"ijbb"` or `"ijbc"`.
        folder (`Path`): Has `meta/` with the tables, and `loose_crop/` with the images.
        image_names (`np.ndarray` of shape `(num_images,)`): File of every image in `loose_crop/`.
        landmarks (`np.ndarray` of `float32` and shape `(num_images, 5, 2)`):
            Eyes, nose and corners of the mouth of every image, x and y in pixels.
        detector_scores (`np.ndarray` of `float32` and shape `(num_images,)`): How sure the detector was of the face.
        template_ids (`np.ndarray` of `int32` and shape `(num_templates,)`): Published numbers, ascending.
        image_template (`np.ndarray` of `int32` and shape `(num_images,)`): Template of every image.
        image_media (`np.ndarray` of `int32` and shape `(num_images,)`): Media number of every image.
        pair_first (`np.ndarray` of `int32` and shape `(num_pairs,)`): First template of every pair.
        pair_second (`np.ndarray` of `int32` and shape `(num_pairs,)`): Second template of every pair.
        is_same (`np.ndarray` of `bool` and shape `(num_pairs,)`): Whether both show the same person.

    Example:

    ```python
    >>> protocol = IjbProtocol.read("IJBC")
    >>> loader = DataLoader(IjbImages(protocol, processor), batch_size=64, collate_fn=collate)
    >>> result = evaluate_ijb(features, protocol)
    ```
    """

    name: str
    folder: Path
    image_names: np.ndarray
    landmarks: np.ndarray
    detector_scores: np.ndarray
    template_ids: np.ndarray
    image_template: np.ndarray
    image_media: np.ndarray
    pair_first: np.ndarray
    pair_second: np.ndarray
    is_same: np.ndarray

    @classmethod
    def read(cls, folder: str | Path) -> "IjbProtocol":
        """
        Args:
            folder (`str` or `Path`):
                Has `meta/` with `{name}_face_tid_mid.txt`, `{name}_name_5pts_score.txt` and
                `{name}_template_pair_label.txt`, `name` being `ijbb` or `ijbc`. `loose_crop/` is only needed for
                [`IjbImages`].

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: Tables of both protocols lie there, a line does not fit, the tables contradict each other, or a
                pair names a template without images. Names file and line.
        """
        folder = Path(folder)
        name = _find_name(folder)
        names, templates, media = _read_templates(folder / "meta" / f"{name}_face_tid_mid.txt")
        landmarks, scores = _read_landmarks(folder / "meta" / f"{name}_name_5pts_score.txt", names)
        template_ids, image_template = np.unique(templates, return_inverse=True)
        first, second, is_same = _read_pairs(folder / "meta" / f"{name}_template_pair_label.txt", template_ids)
        return cls(
            name=name,
            folder=folder,
            image_names=names,
            landmarks=landmarks,
            detector_scores=scores,
            template_ids=template_ids,
            image_template=image_template.astype(np.int32),
            image_media=media,
            pair_first=first,
            pair_second=second,
            is_same=is_same,
        )

    @property
    def num_images(self) -> int:
        """Number of images, which is that of rows that features must have."""
        return len(self.image_names)

    @property
    def num_templates(self) -> int:
        """Number of templates."""
        return len(self.template_ids)

    @property
    def num_pairs(self) -> int:
        """Number of pairs."""
        return len(self.is_same)

    def check_official_size(self) -> None:
        """
        Compares the numbers of images, templates and pairs with the published ones: a table that was cut off at the end
        of a line reads well.

        Raises:
            ValueError: One differs.
        """
        found = (self.num_images, self.num_templates, self.num_pairs)
        for kind, number, official in zip(
            ("images", "templates", "pairs"), found, OFFICIAL_SIZES[self.name], strict=True
        ):
            if number != official:
                raise ValueError(
                    f"{self.folder} has {number} {kind} and {self.name} has {official}; copy the `meta` folder again, or "
                    "do not call the result one of the full protocol"
                )


@dataclass(frozen=True, eq=False)
class IjbIdentification:
    """
    Galleries and probes of the 1:N protocol of IJB-B or IJB-C. A person is in at most one of the two galleries, so that
    the probes of persons in the other gallery are those that a search should not find.

    Args:
        galleries (`dict[str, tuple[np.ndarray, np.ndarray]]`):
            Of `"G1"` and `"G2"` (IJB-C) or `"S1"` and `"S2"` (IJB-B): rows of the templates in
            `IjbProtocol.template_ids`, and persons; one template a person.
        probe_templates (`np.ndarray` of `int32` and shape `(num_probes,)`): Rows of the probe templates.
        probe_subjects (`np.ndarray` of `int32` and shape `(num_probes,)`): Persons.
    """

    galleries: dict[str, tuple[np.ndarray, np.ndarray]]
    probe_templates: np.ndarray
    probe_subjects: np.ndarray

    @classmethod
    def read(cls, protocol: IjbProtocol) -> "IjbIdentification":
        """
        Reads `meta/{name}_1N_gallery_*.csv` and `meta/{name}_1N_probe_mixed.csv`: a line of headings, then a line an
        image, whose first two columns are the template and the person.

        Args:
            protocol ([`IjbProtocol`]): Knows the folder and the templates.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A line does not fit, a template has no images or two persons, or a gallery has two templates of
                one person. Names the file, and the line or the template.
        """
        meta, name = protocol.folder / "meta", protocol.name
        paths = {gallery: meta / f"{name}_1N_gallery_{gallery}.csv" for gallery in GALLERIES[name]}
        galleries = {gallery: _read_subjects(path, protocol.template_ids) for gallery, path in paths.items()}
        for gallery, (_, subjects) in galleries.items():
            values, counts = np.unique(subjects, return_counts=True)
            if counts.max() > 1:
                raise ValueError(
                    f"{paths[gallery]}: person {values[counts > 1][0]} has {counts.max()} templates; a gallery has one "
                    "of each person"
                )
        return cls(galleries, *_read_subjects(meta / f"{name}_1N_probe_mixed.csv", protocol.template_ids))


def _find_name(folder: Path) -> str:
    found = [name for name in OFFICIAL_SIZES if (folder / "meta" / f"{name}_face_tid_mid.txt").is_file()]
    if not found:
        raise FileNotFoundError(
            f"{folder / 'meta'} has neither ijbb_face_tid_mid.txt nor ijbc_face_tid_mid.txt; give the folder that has "
            "`meta` and `loose_crop` of one protocol"
        )
    if len(found) > 1:
        raise ValueError(
            f"{folder / 'meta'} has tables of ijbb and of ijbc; keep each protocol in a folder of its own"
        )
    return found[0]


def _read_templates(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = read_table(path, {"image": pa.string(), "template": pa.int32(), "media": pa.int32()})
    for column in ("template", "media"):
        negative = np.flatnonzero(table[column] < 0)
        if len(negative):
            raise line_error(path, negative[0], f"{column} {table[column][negative[0]]} is negative")
    return table["image"], table["template"], table["media"]


def _read_landmarks(path: Path, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    table = read_table(
        path, {"image": pa.string(), **{name: pa.float32() for name in _LANDMARKS}, "score": pa.float32()}
    )
    found = table["image"]
    if len(found) != len(names):
        raise ValueError(
            f"{path} has {len(found)} lines and the table of templates has {len(names)}; both have a line an image. "
            "Copy the `meta` folder again"
        )
    different = np.flatnonzero(found != names)
    if len(different):
        row = different[0]
        raise line_error(
            path, row, f"image {found[row]!r}, but line {row + 1} of the table of templates has {names[row]!r}"
        )
    scores = table["score"]
    low = np.flatnonzero(scores <= 0)
    if len(low):
        raise line_error(path, low[0], f"the detector's score is {scores[low[0]]}; it must be positive")
    landmarks = np.stack([table[name] for name in _LANDMARKS], axis=1)
    bad = np.flatnonzero(~np.isfinite(landmarks).all(axis=1) | ~np.isfinite(scores))
    if len(bad):
        raise line_error(path, bad[0], "a landmark or the score is not finite; detect the face again")
    return landmarks.reshape(-1, 5, 2), scores


def _read_pairs(path: Path, template_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = read_table(path, {"template": pa.int32(), "other": pa.int32(), "label": pa.int8()})
    labels = table["label"]
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if len(wrong):
        raise line_error(path, wrong[0], f"label {labels[wrong[0]]}; it must be 1 (same person) or 0")
    first, second = (_rows(path, table.pop(column), template_ids) for column in ("template", "other"))
    return first, second, labels.astype(np.bool_)


def _read_subjects(path: Path, template_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the templates of a gallery or of the probes, and their persons; one of each template."""
    templates, persons = read_leading_integers(path, "template", "person")
    rows = _rows(path, templates, template_ids, first_line=1)
    unique, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    subjects = persons[first]
    other = np.flatnonzero(persons != subjects[inverse])
    if len(other):
        row, before = other[0], first[inverse[other[0]]]
        raise line_error(
            path,
            row + 1,
            f"template {templates[row]} shows person {persons[row]}, but person {persons[before]} in line {before + 2}",
        )
    return unique.astype(np.int32), subjects.astype(np.int32)


def _rows(path: Path, ids: np.ndarray, template_ids: np.ndarray, first_line: int = 0) -> np.ndarray:
    # One row per possible number, and one for all above: a lookup takes a tenth of a search among sorted numbers.
    table = np.full(template_ids[-1] + 2, -1, dtype=np.int32)
    table[template_ids] = np.arange(len(template_ids))
    rows = table.take(ids, mode="clip")
    if rows.min() < 0 or ids.min() < 0:
        unknown = np.flatnonzero((rows < 0) | (ids < 0))
        raise line_error(
            path,
            unknown[0] + first_line,
            f"template {ids[unknown[0]]} has no images in the table of templates ({len(unknown)} lines name such one)",
        )
    return rows
