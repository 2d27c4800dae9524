"""Class centers that insightface saved in parts, one a process."""

import os
import re
from collections.abc import Container, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..models.model_checks import check_finite
from .convert_files import CENTERS_ENTRY, read_file


# `softmax_fc_gpu_0.pt`, `checkpoint_gpu_0.pt`, `rank_0_softmax_weight.pt`. No file tells inside which rank it is of, or
# how many there are.
_RANK = re.compile(r"(?:gpu|rank)_(\d+)")
# `rank_0_softmax_weight_mom.pt`, which has the shape of the centers.
_MOMENTUM = "_mom"
_NAMES = ("weight", "module.weight", "classifier.weight")


def read_centers(paths: Sequence[str | os.PathLike]) -> torch.Tensor:
    """
    The class centers in one file, or in one file for each process of a training with PartialFC
    (deepinsight/insightface, `recognition/arcface_torch/partial_fc_v2.py`), merged in the order of the ranks.

    Args:
        paths (`Sequence[str | os.PathLike]`):
            Several files must be called as insightface calls them, and be all of them; their order does not matter.
            One file may have any name, but where it is called so, it must be the only one too. Each holds the matrix,
            a state dict of it, or the whole state of a process.

    Returns:
        `torch.Tensor` of shape `(num_labels, embedding_size)`: The center of class i in row i.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file cannot be read, holds no centers or values that are not finite, has the momentum by its
            name, or tells no rank; a rank is missing or there twice; a further one lies in the folder of a file; or
            the parts have other sizes than PartialFC gives them.
    """
    ordered = _ordered([Path(path).expanduser() for path in paths])
    parts = [_matrix(read_file(path), path) for path in ordered]
    sizes = [len(part) for part in parts]
    if len({part.shape[1] for part in parts}) > 1:
        widths = ", ".join(f"{path}: {part.shape[1]}" for path, part in zip(ordered, parts, strict=True))
        raise ValueError(f"the class centers have different widths ({widths}); the files are of different trainings")
    # The first ranks have one class more where the division leaves a rest.
    share, rest = divmod(sum(sizes), len(sizes))
    expected = [share + (rank < rest) for rank in range(len(sizes))]
    if sizes != expected:
        raise ValueError(
            f"the class centers come in parts of {sizes}, but PartialFC makes {expected} of as many classes; one of "
            f"{', '.join(map(str, ordered))} is of another training"
        )
    return torch.cat(parts)


def _ordered(paths: list[Path]) -> list[Path]:
    for path in paths:
        if path.stem.endswith(_MOMENTUM):
            centers = path.name.replace(_MOMENTUM + path.suffix, path.suffix)
            raise ValueError(f"{path} has, by its name, the momentum of class centers; give {centers}")
    if len(paths) == 1 and len(_RANK.findall(paths[0].name)) != 1:
        return paths
    ranks = _by_rank(paths)
    for path in paths:
        _refuse_further(path, ranks)
    return [ranks[rank] for rank in sorted(ranks)]


def _by_rank(paths: list[Path]) -> dict[int, Path]:
    ranks: dict[int, Path] = {}
    for path in paths:
        found = _RANK.findall(path.name)
        if len(found) != 1:
            raise ValueError(f"the name of {path} tells no rank; expected softmax_fc_gpu_0.pt or checkpoint_gpu_0.pt")
        rank = int(found[0])
        if rank in ranks:
            raise ValueError(f"{ranks[rank]} and {path} both have the centers of rank {rank}; give one of them")
        ranks[rank] = path
    # Not all of them: a date in a name may look like a rank.
    missing = list(islice((rank for rank in range(max(ranks)) if rank not in ranks), 8))
    if missing:
        raise ValueError(
            f"the class centers of rank {', '.join(map(str, missing))} are missing; give all files, or, if {paths[0]} "
            "has all centers, a name without a rank"
        )
    return ranks


def _refuse_further(path: Path, ranks: Container[int]) -> None:
    # The first ranks of a training look like all of a smaller one where the parts are equal.
    before, _, after = _RANK.split(path.name)
    names = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    like = re.compile(f"{re.escape(before)}{_RANK.pattern}{re.escape(after)}")
    further = [name for name in names if (found := like.fullmatch(name)) and int(found[1]) not in ranks]
    if further:
        raise ValueError(
            f"{path.parent} has the class centers of further ranks, which were not given ({', '.join(further)}); give "
            "all files, or move those of another training away"
        )


def _matrix(content: Any, path: Path) -> torch.Tensor:
    if isinstance(content, dict):
        content = content.get(CENTERS_ENTRY, content)
    if isinstance(content, dict) and len(content) == 1 and next(iter(content)) in _NAMES:
        content = next(iter(content.values()))
    if not isinstance(content, torch.Tensor) or content.ndim != 2 or not content.is_floating_point():
        held = ", ".join(map(str, content)) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ValueError(
            f"{path} holds no class centers but {held}; expected a matrix, {{'weight': matrix}} or {CENTERS_ENTRY!r}"
        )
    check_finite([(str(path), content)])
    return content.detach()
