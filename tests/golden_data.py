"""Stored numbers that several tests compare with; `golden/README.md` says what is in which file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file


def golden_path(name: str) -> Path:
    """Where the stored file `name` lies."""
    return Path(__file__).parent / "golden" / name


def load_golden(name: str) -> dict[str, torch.Tensor]:
    """The tensors of `name.safetensors`; those stored in eight bits come back as float32, whose values they are."""
    tensors = load_file(golden_path(f"{name}.safetensors"))
    return {key: t.float() if t.dtype == torch.float8_e4m3fn else t for key, t in tensors.items()}


def drawn_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """The weights that the stored outputs of the face networks were made with, by name and shape."""
    random = np.random.RandomState(0)
    return {name: torch.from_numpy(_drawn(random, name, shapes[name])) for name in sorted(shapes)}


def _drawn(random: np.random.RandomState, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.array(0)
    normal = random.standard_normal(shape).astype("float32")
    if len(shape) > 1:
        return normal * np.float32((2 / np.prod(shape[1:])) ** 0.5)
    if name.endswith("running_var"):
        return 1 + np.abs(normal) / 4
    return normal / 8 + np.float32(0.75 if name.endswith("weight") else 0)


def drawn_images(height: int, width: int) -> torch.Tensor:
    """The four images that the stored outputs of the face networks were made with."""
    return torch.from_numpy(np.random.RandomState(1).standard_normal((4, 3, height, width)).astype("float32"))
