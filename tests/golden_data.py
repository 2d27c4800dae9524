"""Stored numbers that several tests compare with; `golden/README.md` says what is in which file."""

import json
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


def face_checkpoint() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The stored numbers of insightface's own MobileFaceNet, and all of its weights by insightface's names."""
    golden = load_golden("face/model_mobilefacenet")
    stored = {k.removeprefix("state_dict."): t for k, t in golden.items() if k.startswith("state_dict.")}
    shapes = json.loads(golden_path("face/architectures.json").read_text())["mobilefacenet_1x"]["state_dict"]
    width = len(golden["embedding"][0])
    # The last two modules are the only ones that depend on the width, which is 512 in `architectures.json`.
    shapes = {
        k: [width, *s[1:]] if k.startswith(("features.layers.2", "features.layers.3")) and s else s
        for k, s in shapes.items()
    }
    drawn = _initial_weights(5, {name: shape for name, shape in shapes.items() if len(shape) > 1})
    return golden, {name: {**drawn, **stored}.get(name, _constant(name, shape)) for name, shape in shapes.items()}


def _initial_weights(seed: int, shapes: Mapping[str, list[int]]) -> dict[str, torch.Tensor]:
    """
    What `kaiming_normal_(mode="fan_out")` of torch draws on a CPU after `manual_seed(seed)`, tensor by tensor, when the
    constructors of the layers have drawn one number for each weight before.
    """
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    # The stream of NumPy's `RandomState` is that of torch, of which a number in [0, 1) takes the lower 24 bits.
    stream = np.frombuffer(np.random.RandomState(seed).bytes(8 * total), dtype="<u4")[total:]
    uniform = (stream & 0xFFFFFF).astype("float32") / np.float32(2**24)
    weights, start = {}, 0
    for name, shape in shapes.items():
        size, fan_out = int(np.prod(shape)), shape[0] * int(np.prod(shape[2:]))
        normal = _box_muller(uniform[start : start + size]) * np.float32((2 / fan_out) ** 0.5)
        weights[name], start = torch.from_numpy(normal.reshape(shape)), start + size
    return weights


def _box_muller(uniform: np.ndarray) -> np.ndarray:
    """Normal numbers as torch makes them: of 16 uniform ones the first eight give lengths and the others angles."""
    first, second = uniform.reshape(-1, 2, 8).transpose(1, 0, 2)
    length, angle = np.sqrt(-2 * np.log(1 - first)), np.float32(2 * np.pi) * second
    return np.stack([length * np.cos(angle), length * np.sin(angle)], axis=1).reshape(-1)


def _constant(name: str, shape: list[int]) -> torch.Tensor:
    """What a layer that has not been trained holds beside its weights: of normalizations, and the slopes of PReLU."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    is_slope = name.endswith("layers.2.weight")
    return torch.full(shape, 0.25 if is_slope else 0.0 if name.endswith("bias") else 1.0)
