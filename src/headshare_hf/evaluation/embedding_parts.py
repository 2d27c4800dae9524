"""Embeddings of a large set in parts on disk, so that an extraction that was cut goes on where it was."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from .part_folder import PartFolder


class EmbeddingParts(PartFolder):
    """
    A [`PartFolder`] with consecutive rows of a matrix of embeddings.

    Args:
        folder (`str` or `Path`): Where to; it is made where needed.
        key (`Mapping[str, Any]`): Everything that the rows depend on, as JSON has it.
        num_rows (`int`): Rows of the whole matrix.
        part_rows (`int`): Rows of a part; the last one may have fewer.

    Raises:
        ValueError: The folder holds rows of another key, or of none; what differs is named.
    """

    def __init__(self, folder: str | Path, key: Mapping[str, Any], num_rows: int, part_rows: int) -> None:
        super().__init__(folder, key, num_rows, part_rows, "embeddings")

    def write(self, part: range, rows: np.ndarray) -> None:
        """
        Writes one part, whole or not at all.

        Args:
            part (`range`): Which rows of the matrix.
            rows (`np.ndarray` of shape `(len(part), width)`): These rows.
        """
        partial = self.file(part).with_suffix(".partial")
        save_file({"embeddings": np.ascontiguousarray(rows)}, partial)
        os.replace(partial, self.file(part))

    def read(self, part: range) -> np.ndarray:
        """
        Args:
            part (`range`): Which rows of the matrix.

        Returns:
            `np.ndarray` of `float32` and shape `(len(part), width)`.

        Raises:
            ValueError: The file is damaged.
        """
        path = self.file(part)
        try:
            rows = load_file(path).get("embeddings")
        except SafetensorError as error:
            raise ValueError(
                f"{path} cannot be read ({error}); delete this file, and its rows are made anew"
            ) from error
        if rows is None or rows.dtype != np.float32 or rows.ndim != 2 or len(rows) != len(part):
            raise ValueError(
                f"{path} has no {len(part)} rows of float32; delete this file, and its rows are made anew"
            )
        return rows
