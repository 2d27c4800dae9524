"""Students for deployment: an ONNX file or a program of `torch.export`, checked against the model that it was made from."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .export_network import (
    INPUT_NAME,
    ExportNetwork,
    check_suffix,
    choose_image_size,
    compare_outputs,
    describe,
    example_images,
    exported_part,
    quiet_logs,
    require,
    size_mb,
    whole_file,
)
from .onnx_model import OnnxModel


logger = logging.getLogger(__name__)

# The operators that torch's exporter is written in; it converts them for other opsets, and not always.
DEFAULT_OPSET = 18
METADATA_FILE = "metadata.json"
# Of one protobuf message, which an ONNX file is.
_MAX_BYTES = 2**31
# More than one image, since torch.export takes a size of 1 for a constant.
_EXAMPLE_BATCH = 2


@dataclass(frozen=True)
class ExportRecord:
    """
    What was written, and how far it is from the model.

    Attributes:
        path (`Path`): The file.
        size_mb (`float`): Its size in MB, of 10⁶ bytes.
        metadata (`dict[str, Any]`): What the file says of itself.
        differences (`dict[str, dict[str, float]]`): By the name of an output, see [`compare_outputs`].
    """

    path: Path
    size_mb: float
    metadata: dict[str, Any]
    differences: dict[str, dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, with the name of the file in the place of its path."""
        return {
            "file": self.path.name,
            "size_mb": self.size_mb,
            "metadata": self.metadata,
            "differences": self.differences,
        }


def export_onnx(
    model: nn.Module,
    path: str | Path,
    *,
    processor: Any | None = None,
    image_size: int | list[int] | None = None,
    opset: int = DEFAULT_OPSET,
    embeddings_only: bool = False,
) -> ExportRecord:
    """
    Writes a model as an ONNX file in float32, and checks it with onnxruntime on noise in batches of 1, 3 and 8.

    The input is `pixel_values` with any batch size and one image size. The outputs are `logits` (without a margin) and
    `embeddings`; a [`HeadShareModel`] has the second alone. The properties of the file hold, as JSON, `opset`,
    `backbone`, `image_size` ([height, width] in pixels), `num_channels`, `labels` where the classes have names,
    `verification_thresholds`, and with `processor` what prepares images: `channel_order`, `resize`, `resample` (PIL's
    number), `center_crop`, `rescale_factor`, `image_mean` and `image_std`. [`OnnxModel`] reads them.

    Args:
        model ([`HeadShareForImageClassification`] or [`HeadShareModel`]): Left as it is.
        path (`str` or `Path`): Ends in `.onnx`. Nothing is left there when the check fails.
        processor (`Any`, *optional*): The model's image processor; without it the file does not say how to prepare images.
        image_size (`int` or `list[int]`, *optional*):
            One side, or height and width, in pixels. Defaults to the processor's, and then to the configuration's.
        opset (`int`, *optional*, defaults to 18): Version of ONNX's operators, at least 18.
        embeddings_only (`bool`, *optional*, defaults to `False`): Leave out the classifier.

    Returns:
        [`ExportRecord`].

    Raises:
        ImportError: onnx, onnxruntime or onnxscript is missing.
        TypeError: It is no model of this package.
        ValueError: Path, opset or image size does not fit, the network cannot be exported, or an output differs by more
            than 1e-4 of its largest value; names it.

    Example:

    ```python
    >>> record = export_onnx(model, "model.onnx", processor=processor)
    >>> record.differences["logits"]["max_abs_difference"]
    ```
    """
    onnx = check_can_export(opset)
    path = check_suffix(path, ".onnx")
    chosen = exported_part(model, embeddings_only)
    _check_bytes(chosen)
    network = ExportNetwork(chosen)
    size = choose_image_size(chosen, processor, image_size)
    metadata = {**describe(network.model, processor, size, network.outputs), "opset": opset}
    content = _to_onnx(network, size, opset)
    onnx.helper.set_model_props(content, {name: json.dumps(value) for name, value in metadata.items()})
    with whole_file(path) as partial:
        onnx.save(content, partial)
        differences = compare_outputs(network, OnnxModel(partial), metadata["num_channels"], size, path.name)
    return _record(path, metadata, differences)


def export_program(
    model: nn.Module,
    path: str | Path,
    *,
    processor: Any | None = None,
    image_size: int | list[int] | None = None,
    embeddings_only: bool = False,
) -> ExportRecord:
    """
    Writes a model as a program of `torch.export`, loads it again and checks it as [`export_onnx`] does.

    `torch.export.load(path).module()` maps `pixel_values`, of any batch size, to a dict with `logits` and `embeddings`.
    What the properties of an ONNX file hold is in the extra file `metadata.json` of the archive.

    Args:
        model ([`HeadShareForImageClassification`] or [`HeadShareModel`]): Left as it is.
        path (`str` or `Path`): Ends in `.pt2`.
        processor (`Any`, *optional*): As in [`export_onnx`], as the following.
        image_size (`int` or `list[int]`, *optional*): Height and width in pixels.
        embeddings_only (`bool`, *optional*, defaults to `False`): Leave out the classifier.

    Returns:
        [`ExportRecord`].

    Raises:
        TypeError, ValueError: As [`export_onnx`].
    """
    path = check_suffix(path, ".pt2")
    network = ExportNetwork(exported_part(model, embeddings_only))
    size = choose_image_size(network.model, processor, image_size)
    metadata = {**describe(network.model, processor, size, network.outputs), "torch": torch.__version__}
    images = example_images(metadata["num_channels"], size, _EXAMPLE_BATCH)
    with torch.no_grad(), quiet_logs():
        program = torch.export.export(network, (images,), dynamic_shapes=_dynamic_shapes())
    with whole_file(path) as partial:
        torch.export.save(program, partial, extra_files={METADATA_FILE: json.dumps(metadata)})
        loaded = torch.export.load(partial).module()
        differences = compare_outputs(network, loaded, metadata["num_channels"], size, path.name)
    return _record(path, metadata, differences)


def _record(path: Path, metadata: dict[str, Any], differences: dict[str, dict[str, float]]) -> ExportRecord:
    record = ExportRecord(path, size_mb(path), metadata, differences)
    for output, found in differences.items():
        logger.info(
            "%s: `%s` is within %.3g of torch's (largest value %.3g)",
            path.name,
            output,
            found["max_abs_difference"],
            found["scale"],
        )
    return record


def _dynamic_shapes() -> dict[str, dict[int, Any]]:
    return {INPUT_NAME: {0: torch.export.Dim("batch_size")}}


def _to_onnx(network: ExportNetwork, image_size: tuple[int, int], opset: int) -> Any:
    config = network.model.config
    images = example_images(config.num_channels, image_size, _EXAMPLE_BATCH)
    # Images that the network refuses are reported by the network itself.
    with torch.inference_mode():
        network(images)
    try:
        with quiet_logs():
            program = torch.onnx.export(
                network,
                (images,),
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=_dynamic_shapes(),
                input_names=[INPUT_NAME],
                output_names=list(network.outputs),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        # torch's own message is a page on how to report it; the reason is what it was raised from.
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise ValueError(f"torch cannot export {config.backbone} to ONNX with any batch size: {reason}") from error
    assert program is not None
    content = program.model_proto
    version = next(entry.version for entry in content.opset_import if not entry.domain)
    if version != opset:
        raise ValueError(f"the exporter cannot convert {config.backbone} to opset {opset}; use opset {version}")
    return content


def check_can_export(opset: int) -> Any:
    """
    Args:
        opset (`int`): Version of ONNX's operators.

    Returns:
        The package `onnx`.

    Raises:
        ImportError: onnx, onnxruntime or onnxscript is missing.
        ValueError: They do not know `opset`.
    """
    onnx, *_ = require("ONNX export", "onnx", "onnxruntime", "onnxscript")
    newest = onnx.defs.onnx_opset_version()
    if not DEFAULT_OPSET <= opset <= newest:
        raise ValueError(
            f"`opset` is {opset}; torch's exporter and this version of onnx allow {DEFAULT_OPSET} to {newest}"
        )
    return onnx


def _check_bytes(model: nn.Module) -> None:
    num_bytes = 4 * sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if num_bytes >= _MAX_BYTES:
        raise ValueError(
            f"the weights take {num_bytes / 1e9:.1f} GB and an ONNX file holds less than 2 GiB; export with "
            "`embeddings_only=True`, which leaves out the class matrix, or use `export_program`"
        )
