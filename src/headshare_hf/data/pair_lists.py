"""Files that list pairs of images: `pairs.csv` by row number, and `pairs.txt` of Labeled Faces in the Wild by name."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np


_COLUMNS = ("index_a", "index_b", "same")


class IndexedPairs(NamedTuple):
    """
    Pairs by the numbers of their images.

    Attributes:
        index_a (`np.ndarray` of `int64` and shape `(num_pairs,)`): First image of every pair.
        index_b (`np.ndarray` of `int64` and shape `(num_pairs,)`): Second image.
        is_same (`np.ndarray` of `bool` and shape `(num_pairs,)`): Whether they show the same person.
        names (`dict[int, str]`): Name of every image that the file names.
    """

    index_a: np.ndarray
    index_b: np.ndarray
    is_same: np.ndarray
    names: dict[int, str]


class NamedPairs(NamedTuple):
    """
    Pairs by the names of their images, `person_0001`.

    Attributes:
        first (`list[str]`): First image of every pair.
        second (`list[str]`): Second image.
        is_same (`list[bool]`): Whether they show the same person.
        folds (`list[int]`, *optional*): Fold of every pair, where the file has folds.
    """

    first: list[str]
    second: list[str]
    is_same: list[bool]
    folds: list[int] | None


def read_pairs_csv(path: Path, num_images: int) -> IndexedPairs:
    """
    Pairs from a table with the columns `index_a`, `index_b`, `same` (1 or 0), and perhaps `name_a` and `name_b`.

    Args:
        path (`Path`): The file.
        num_images (`int`): Number of images that there are.

    Raises:
        ValueError: A column is missing, there is no pair, or a line has no valid pair; names the line.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = [column for column in _COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path} has no column {', '.join(missing)}; its first line must name {', '.join(_COLUMNS)}"
            )
        values: list[list[int]] = []
        names: dict[int, str] = {}
        for row in rows:
            where = f"line {rows.line_num} of {path}"
            pair = [_integer(row[column], column, where) for column in _COLUMNS]
            _check_indexed_pair(pair, num_images, where)
            for column, index in zip(("name_a", "name_b"), pair, strict=False):
                if row.get(column) and names.setdefault(index, row[column]) != row[column]:
                    raise ValueError(
                        f"{where} names image {index} {row[column]!r}, but a line before {names[index]!r}"
                    )
            values.append(pair)
    if not values:
        raise ValueError(f"{path} lists no pairs")
    index_a, index_b, same = np.array(values, dtype=np.int64).T
    return IndexedPairs(index_a, index_b, same == 1, names)


def read_lfw_pairs(path: Path) -> NamedPairs:
    """
    Pairs from a list of Labeled Faces in the Wild (http://vis-www.cs.umass.edu/lfw/).

    The first line of View 2 has the number of folds and of matched pairs in each, that of View 1 the number of matched
    pairs alone. A matched pair is `name n m` and a mismatched one `name_a n name_b m`; in each fold as many mismatched
    pairs follow the matched ones.

    Args:
        path (`Path`): The file.

    Raises:
        ValueError: The header, a line or the number of lines is wrong; names the line.
    """
    lines = path.read_text(encoding="utf-8").rstrip().split("\n")
    header = lines[0].split()
    if len(header) not in (1, 2) or not all(field.isascii() and field.isdigit() and int(field) for field in header):
        raise ValueError(
            f"line 1 of {path} is {lines[0]!r}; expected the number of folds and of matched pairs in each, or that of "
            "matched pairs alone"
        )
    matched = int(header[-1])
    num_folds = int(header[0]) if len(header) == 2 else 1
    if len(lines) - 1 != 2 * matched * num_folds:
        raise ValueError(
            f"{path} has {len(lines) - 1} pairs, but its first line promises {2 * matched * num_folds}; is it cut off?"
        )
    pairs = [_lfw_pair(line, n, n % (2 * matched) < matched, path) for n, line in enumerate(lines[1:])]
    first, second, is_same = (list(column) for column in zip(*pairs, strict=True))
    folds = [number // (2 * matched) for number in range(len(pairs))] if len(header) == 2 else None
    return NamedPairs(first, second, is_same, folds)


def contiguous_folds(num_pairs: int, num_folds: int = 10) -> np.ndarray:
    """
    Folds of neighboring pairs, as equal as can be, the larger ones first: what `KFold(num_folds)` of scikit-learn makes.

    Args:
        num_pairs (`int`): Number of pairs.
        num_folds (`int`, *optional*, defaults to 10): Number of folds.

    Returns:
        `np.ndarray` of `int64` and shape `(num_pairs,)`: Fold of every pair.

    Raises:
        ValueError: There are fewer pairs than folds, or fewer than two folds.
    """
    if not 2 <= num_folds <= num_pairs:
        raise ValueError(
            f"{num_pairs} pairs cannot be divided into {num_folds} folds; there must be two or more of each"
        )
    sizes = np.full(num_folds, num_pairs // num_folds)
    sizes[: num_pairs % num_folds] += 1
    return np.repeat(np.arange(num_folds), sizes)


def default_folds(is_same: np.ndarray) -> np.ndarray:
    """
    Ten folds for pairs that come without: [`contiguous_folds`], as everyone takes them for `.bin` files, if each of them
    holds pairs of both kinds. Otherwise neighboring pairs within each kind: in a list of all matched pairs and then all
    mismatched ones, the best threshold for nine contiguous folds is the worst for the tenth.

    Args:
        is_same (`np.ndarray` of `bool` and shape `(num_pairs,)`): Whether each pair is one person.

    Returns:
        `np.ndarray` of `int64` and shape `(num_pairs,)`: Fold of every pair.

    Raises:
        ValueError: There are fewer than ten pairs.
    """
    folds = contiguous_folds(len(is_same))
    if all(np.isin(range(10), folds[kind]).all() for kind in (is_same, ~is_same)):
        return folds
    for kind in (is_same, ~is_same):
        count = int(kind.sum())
        folds[kind] = np.arange(count) * 10 // max(count, 1)
    return folds


def lfw_identity(name: str) -> str:
    """The person of an image that is named as in Labeled Faces in the Wild: `Abba_Eban_0001` is of `Abba_Eban`."""
    person, _, number = name.rpartition("_")
    return person if person and number.isdigit() else name


def _integer(text: str | None, column: str, where: str) -> int:
    try:
        return int(text or "")
    except ValueError as error:
        raise ValueError(f"column {column!r} in {where} has {text!r}; expected a whole number") from error


def _check_indexed_pair(pair: list[int], num_images: int, where: str) -> None:
    for column, index in zip(_COLUMNS, pair[:2], strict=False):
        if not 0 <= index < num_images:
            raise ValueError(f"column {column!r} in {where} has {index}; there are {num_images} images, from 0")
    if pair[2] not in (0, 1):
        raise ValueError(f"column 'same' in {where} has {pair[2]}; expected 1 or 0")


def _lfw_pair(line: str, number: int, matched: bool, path: Path) -> tuple[str, str, bool]:
    fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]
    where = f"line {number + 2} of {path}"
    if len(fields) != (3 if matched else 4):
        form = "matched pair, `name n m`" if matched else "mismatched pair, `name_a n name_b m`"
        raise ValueError(f"{where} is {line!r}; by the first line this is a {form}")
    person_a, image_a, person_b, image_b = [fields[0], fields[1], fields[0], fields[2]] if matched else fields
    for image in (image_a, image_b):
        if not (image.isascii() and image.isdigit()):
            raise ValueError(f"{where} has {image!r} where the number of an image should be")
    return f"{person_a}_{int(image_a):04d}", f"{person_b}_{int(image_b):04d}", matched
