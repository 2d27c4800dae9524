"""Stored numbers that several tests compare with; `golden/README.md` says what is in which file."""

from pathlib import Path

import torch
from safetensors.torch import load_file


def golden_path(name: str) -> Path:
    """Where the stored file `name` lies."""
    return Path(__file__).parent / "golden" / name


def load_golden(name: str) -> dict[str, torch.Tensor]:
    """The tensors of `name.safetensors`; those stored in eight bits come back as float32, whose values they are."""
    tensors = load_file(golden_path(f"{name}.safetensors"))
    return {key: t.float() if t.dtype == torch.float8_e4m3fn else t for key, t in tensors.items()}
