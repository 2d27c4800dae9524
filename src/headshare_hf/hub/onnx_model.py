"""An ONNX file as a module that the evaluation takes in the place of a model."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.utils import ModelOutput

from ..models.modeling_headshare import HeadShareImageClassifierOutput, HeadShareModelOutput
from .export_network import INPUT_NAME, require


class OnnxModel(nn.Module):
    """
    A file of [`export_onnx`] or [`quantize_onnx`], run by onnxruntime on the CPU.

    Args:
        path (`str` or `Path`): The file.
        embeddings_only (`bool`, *optional*, defaults to `False`): Leave the classifier out, and do not compute it.

    Attributes:
        metadata (`dict[str, Any]`): What the file says of itself, see [`export_onnx`].
        outputs (`tuple[str, ...]`): `"logits"`, where it has a classifier, and `"embeddings"`.

    Raises:
        ImportError: onnxruntime, or for `embeddings_only` onnx is missing.
        FileNotFoundError: There is no such file.
        ValueError: onnxruntime cannot read it, or it is none of this package.

    Example:

    ```python
    >>> model = OnnxModel("model.onnx")
    >>> model(pixel_values=processor(image, return_tensors="pt")["pixel_values"]).embeddings
    ```
    """

    def __init__(self, path: str | Path, embeddings_only: bool = False) -> None:
        super().__init__()
        (onnxruntime,) = require("running an ONNX file", "onnxruntime")
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"the ONNX file {path} does not exist; write one with `export_onnx`")
        self._session = _open(onnxruntime, self.path, embeddings_only)
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        properties = self._session.get_modelmeta().custom_metadata_map
        if self._session.get_inputs()[0].name != INPUT_NAME or "outputs" not in properties:
            raise ValueError(f"{path} does not say how it was made; write it with `export_onnx`")
        self.metadata: dict[str, Any] = {name: json.loads(value) for name, value in properties.items()}
        self.eval()

    def forward(self, pixel_values: torch.Tensor) -> ModelOutput:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Images prepared as `metadata` says, or by the model's image processor.

        Returns:
            [`HeadShareImageClassifierOutput`] or [`HeadShareModelOutput`], on the device of the images.

        Raises:
            ValueError: The images have another shape than the file was made for.
        """
        expected = (self.metadata["num_channels"], *self.metadata["image_size"])
        if tuple(pixel_values.shape[1:]) != expected:
            raise ValueError(
                f"{self.path.name} was exported for images of shape {expected}, got {tuple(pixel_values.shape[1:])}; "
                "prepare them as `metadata` says, or export with another `image_size`"
            )
        images = pixel_values.detach().to("cpu", torch.float32).contiguous().numpy()
        arrays = self._session.run(list(self.outputs), {INPUT_NAME: images})
        tensors: dict[str, Any] = {
            name: torch.from_numpy(array).to(pixel_values.device)
            for name, array in zip(self.outputs, arrays, strict=True)
        }
        return HeadShareImageClassifierOutput(**tensors) if "logits" in tensors else HeadShareModelOutput(**tensors)


def _open(onnxruntime: Any, path: Path, embeddings_only: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Idle threads would otherwise go on spinning and slow down what is run, or measured, next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    if embeddings_only:
        require("leaving out the classifier of an ONNX file", "onnx")
    try:
        content = _embedding_part(path) if embeddings_only else str(path)
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class but this one
        raise ValueError(f"onnxruntime cannot read {path}: {error}") from error


def _embedding_part(path: Path) -> bytes:
    """The file without the classifier, which onnxruntime computes even where nobody asks for the logits."""
    import onnx
    from onnx.utils import Extractor

    content = onnx.load(path)
    part = Extractor(content).extract_model([INPUT_NAME], ["embeddings"])
    part.metadata_props.extend(content.metadata_props)
    return part.SerializeToString()
