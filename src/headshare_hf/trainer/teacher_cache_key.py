"""What a teacher's stored outputs depend on, and the folder that they therefore belong into."""

import contextlib
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..data.input_adapter import InputStatistics
from ..evaluation.part_folder import KEY_FILE, key_differences, read_key
from . import run_folder
from .checks import labels_of
from .identity import describe_configuration
from .teacher_rows import RowShape, TeacherCacheError


logger = logging.getLogger(__name__)

_FORMAT = 1
_SAMPLED_IMAGES = 16


def cache_key(
    teacher: nn.Module,
    statistics: tuple[InputStatistics | None, InputStatistics | None],
    dataset: Any,
    stored: dict[str, Any],
    precision: str,
    shape: RowShape,
) -> dict[str, Any]:
    """
    Everything that the stored rows depend on, as JSON has it.

    Args:
        teacher (`nn.Module`): With its weights.
        statistics (`tuple[InputStatistics, InputStatistics]`): Of the student's images and of the teacher's.
        dataset (`Any`): Tells its views.
        stored (`dict[str, Any]`): What a row is.
        precision (`str`): In which the teacher computes.
        shape ([`RowShape`]): Of the rows.
    """
    labels, files = labels_of(dataset), dataset.files_digest()
    content = {
        "format": _FORMAT,
        **stored,
        **shape._asdict(),
        "teacher": {
            **run_folder.describe_model(teacher),
            "weights": run_folder.weights_digest(teacher.state_dict()),
            "configuration": describe_configuration(teacher),
            "precision": precision,
        },
        "input": [None if part is None else part._asdict() for part in statistics],
        "data": {
            "labels": None if labels is None else run_folder.weights_digest({"labels": labels}),
            "fingerprint": dataset.fingerprint,
            "sample": _sample_digest(dataset.every_view()),
            "preparation": dataset.view_settings,
            **({} if files is None else {"files": files}),
        },
    }
    return json.loads(json.dumps(content))


def _sample_digest(images: Any) -> str:
    """SHA-256 of all views of some images, evenly spread: the same names with other images below them differ."""
    digest = hashlib.sha256()
    for index in sorted({int(place) for place in np.linspace(0, len(images) - 1, _SAMPLED_IMAGES)}):
        digest.update(images[index]["pixel_values"].contiguous().numpy().tobytes())
    return digest.hexdigest()


def cache_folder(directory: Path, key: dict[str, Any]) -> Path:
    """
    The folder of this key below `directory`, or `directory` itself where that is the folder of a key.

    Why rows that are there cannot be used is logged, where a new folder begins.

    Raises:
        TeacherCacheError: `directory` is a file.
    """
    if directory.is_file():
        raise TeacherCacheError(f"`teacher_cache` is the file {directory}; give a folder")
    if (directory / KEY_FILE).is_file():
        return directory
    folder = directory / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    if not folder.is_dir():
        _log_nearest(directory, key)
    return folder


def _log_nearest(directory: Path, key: dict[str, Any]) -> None:
    others = []
    for path in directory.glob(f"*/{KEY_FILE}"):
        # A damaged one matters to those who use it.
        with contextlib.suppress(ValueError):
            stored = read_key(path)
            others.append((key_differences({name: stored.get(name) for name in key}, key), path.parent))
    if others:
        differences, nearest = min(others, key=lambda other: len(other[0]))
        logger.info("%s is of another teacher or data set: %s", nearest, "; ".join(differences))
