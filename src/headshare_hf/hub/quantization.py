"""ONNX files with weights in 8 bits, and what that costs."""

import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from ..data.dataset import collate
from ..evaluation import Verifier
from .export_cost import NoiseImages, evenly_spread, measure_cost
from .export_network import INPUT_NAME, check_suffix, quiet_logs, require, size_mb, whole_file
from .onnx_model import OnnxModel


logger = logging.getLogger(__name__)

MODES = ("dynamic", "static")
_NOISE_IMAGES = 32
_CALIBRATION_BATCH = 8


@dataclass(frozen=True)
class QuantizationRecord:
    """
    What was written, and what it costs.

    Attributes:
        file (`str`): Name of the file.
        mode (`str`): `"dynamic"` or `"static"`.
        size_mb_before (`float`): Size of the float32 file in MB, of 10⁶ bytes.
        size_mb_after (`float`): Size of the int8 file.
        num_calibration_images (`int`): 0 in dynamic mode.
        images (`str`): On what the cost was measured: `"evaluation"`, or `"noise"` where there were no images.
        cost (`dict[str, Any]`): See [`measure_cost`]; `before` is float32 and `after` int8.
    """

    file: str
    mode: str
    size_mb_before: float
    size_mb_after: float
    num_calibration_images: int
    images: str
    cost: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def quantize_onnx(
    path: str | Path,
    out: str | Path,
    *,
    mode: str = "dynamic",
    calibration: Dataset | None = None,
    num_calibration_images: int = 128,
    evaluation: Dataset | None = None,
    verifier: Verifier | None = None,
    batch_size: int = 32,
) -> QuantizationRecord:
    """
    Stores the weights of an ONNX file in 8 bits, a scale for every channel, and measures the cost with both files.

    `"dynamic"` finds the range of the activations while it runs; the file is smaller, and convolutions are often not
    faster. `"static"` takes their ranges from calibration images, which is the faster form for convolutional networks
    on processors with instructions for 8 bits; its weights take 7 of them, because sums of products overflow on those without.
    Networks with attention lose less by `"dynamic"`. Stored verification thresholds are left out of the new file: they were measured
    with other similarities.

    Args:
        path (`str` or `Path`): A file of [`export_onnx`].
        out (`str` or `Path`): The new file, which ends in `.onnx`.
        mode (`str`, *optional*, defaults to `"dynamic"`): `"dynamic"` or `"static"`.
        calibration (`Dataset`, *optional*): Items with `pixel_values`, prepared as for the model; for `"static"`.
        num_calibration_images (`int`, *optional*, defaults to 128): How many of them, evenly spread, to use.
        evaluation (`Dataset`, *optional*):
            Items with `pixel_values`, and with `labels` for an accuracy. Without it the embeddings of noise are compared.
        verifier ([`Verifier`], *optional*): Sets of pairs to verify with both files.
        batch_size (`int`, *optional*, defaults to 32): Images at a time while the cost is measured.

    Returns:
        [`QuantizationRecord`].

    Raises:
        ImportError: onnx or onnxruntime is missing.
        FileNotFoundError, ValueError: There is no such file, or it is none of this package or in 8 bits already; the mode is unknown, has no
            calibration images or does not use them; or both names are the same file.

    Example:

    ```python
    >>> record = quantize_onnx("model.onnx", "model.int8.onnx", mode="static", calibration=train, evaluation=test)
    >>> record.cost["before"]["accuracy"], record.cost["after"]["accuracy"]
    ```
    """
    onnx, _ = require("quantization to int8", "onnx", "onnxruntime")
    _check_mode(mode, calibration, num_calibration_images)
    path, out = Path(path), check_suffix(out, ".onnx")
    if path.resolve() == out.resolve():
        raise ValueError(f"{out} is the file to quantize itself; give another name for the result")
    before = OnnxModel(path)
    if "quantization" in before.metadata:
        raise ValueError(
            f"{path} is in 8 bits already ({before.metadata['quantization']}); give the float32 file of `export_onnx`"
        )
    chosen = None if calibration is None else _choose(calibration, num_calibration_images)
    with whole_file(out) as partial:
        with quiet_logs():
            _quantize(onnx, path, partial, chosen)
        _write_metadata(onnx, partial, before.metadata, mode)
        after = OnnxModel(partial)
        shape = (before.metadata["num_channels"], *before.metadata["image_size"])
        images = NoiseImages(_NOISE_IMAGES, shape) if evaluation is None else evaluation
        cost = measure_cost(before, after, images, verifier=verifier, batch_size=batch_size)
    count = 0 if chosen is None else len(chosen)
    source = "noise" if evaluation is None else "evaluation"
    record = QuantizationRecord(out.name, mode, size_mb(path), size_mb(out), count, source, cost)
    logger.info("%s", json.dumps(record.to_dict()))
    return record


def _choose(calibration: Dataset, count: int) -> Subset:
    length = len(calibration)  # type: ignore[arg-type]
    if not length:
        raise ValueError("`calibration` has no images; static quantization takes the ranges of activations from them")
    return Subset(calibration, evenly_spread(length, count))


def _quantize(onnx: Any, path: Path, out: Path, calibration: Subset | None) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # Shapes are all known but for the batch size; the symbolic inference would need a further package.
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        _forget_weight_shapes(onnx, prepared)
        if calibration is None:
            # Signed weights take a path through onnxruntime's integer convolution that is three times slower.
            quantization.quantize_dynamic(prepared, out, per_channel=True, weight_type=quantization.QuantType.QUInt8)
        else:
            quantization.quantize_static(
                prepared,
                out,
                _CalibrationReader(calibration),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                # Seven bits: of eight, the sums of two products overflow on x86 processors without VNNI.
                reduce_range=True,
            )


def _forget_weight_shapes(onnx: Any, path: Path) -> None:
    """The quantizer transposes weights of linear layers, and then takes the shapes noted for them for a contradiction."""
    content = onnx.load(path)
    weights = {tensor.name for tensor in content.graph.initializer}
    kept = [info for info in content.graph.value_info if info.name not in weights]
    del content.graph.value_info[:]
    content.graph.value_info.extend(kept)
    onnx.save(content, path)


class _CalibrationReader:
    """Batches of images as onnxruntime asks for them; its own base class would have to be imported with this module."""

    def __init__(self, images: Dataset) -> None:
        self._batches: Iterator[dict[str, torch.Tensor]] = iter(
            DataLoader(images, batch_size=_CALIBRATION_BATCH, collate_fn=collate)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT_NAME: batch["pixel_values"].numpy()}


def _write_metadata(onnx: Any, path: Path, metadata: dict[str, Any], mode: str) -> None:
    content = onnx.load(path)
    kept = {name: value for name, value in metadata.items() if name != "verification_thresholds"}
    kept["quantization"] = mode
    onnx.helper.set_model_props(content, {name: json.dumps(value) for name, value in kept.items()})
    onnx.save(content, path)


def _check_mode(mode: str, calibration: Dataset | None, count: int) -> None:
    if mode not in MODES:
        raise ValueError(f"`mode` is {mode!r}; allowed: {', '.join(MODES)}")
    if mode == "static" and calibration is None:
        raise ValueError("static quantization takes the ranges of activations from images; give `calibration`")
    if mode == "dynamic" and calibration is not None:
        raise ValueError("`calibration` has no effect in dynamic mode; leave it out, or set `mode` to 'static'")
    if count < 1:
        raise ValueError(f"`num_calibration_images` is {count}; it must be at least 1")
