"""The two models: embeddings alone, and embeddings with a shareable classifier."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .backbones import create_backbone
from .class_centers import CENTERS_FILE, find_class_centers, load_class_centers, save_class_centers
from .configuration_headshare import HeadShareConfig
from .heads import IGNORED_LABEL, CosineHead, create_head, create_projector


# Bytes; what torch allocates on the CPU starts at a multiple of it.
_ALIGNMENT = 64
LOADING_PROBLEMS = ("missing_keys", "unexpected_keys", "mismatched_keys")
AUTO_MAP = {
    "AutoConfig": "configuration_headshare.HeadShareConfig",
    "AutoModel": "modeling_headshare.HeadShareModel",
    "AutoModelForImageClassification": "modeling_headshare.HeadShareForImageClassification",
}


@dataclass
class HeadShareModelOutput(ModelOutput):
    """
    Output of [`HeadShareModel`].

    Args:
        embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): What a classifier reads.
        hidden_states (`tuple[torch.Tensor, ...]`, *optional*):
            Feature maps `(batch_size, channels, height, width)` of the stem and every stage, after the last activation.
        pre_activations (`tuple[torch.Tensor, ...]`, *optional*): The same maps before that activation.
    """

    embeddings: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    pre_activations: tuple[torch.Tensor, ...] | None = None


@dataclass
class HeadShareImageClassifierOutput(ModelOutput):
    """
    Output of [`HeadShareForImageClassification`].

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): Mean cross-entropy, when `labels` were given.
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Scores before the softmax.
        embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): What the classifier read.
        hidden_states (`tuple[torch.Tensor, ...]`, *optional*): See [`HeadShareModelOutput`].
        pre_activations (`tuple[torch.Tensor, ...]`, *optional*): See [`HeadShareModelOutput`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    embeddings: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    pre_activations: tuple[torch.Tensor, ...] | None = None


class HeadSharePreTrainedModel(PreTrainedModel):
    """Initialisation, and loading that accounts for every tensor."""

    config_class = HeadShareConfig
    base_model_prefix = "headshare"
    main_input_name = "pixel_values"
    input_modalities = "image"
    # The loss is a mean over the batch, so the Trainer must not pass `num_items_in_batch`.
    accepts_loss_kwargs = False

    def _init_weights(self, module: nn.Module) -> None:
        # Every layer draws its weights when it is built, as its paper says, and `from_pretrained` below leaves none to
        # be drawn later. What transformers would do here is to draw linear layers again from N(0, 0.02).
        pass

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """
        As `PreTrainedModel.from_pretrained`, but a checkpoint must hold exactly the tensors of the model.

        Raises:
            ValueError: A file is damaged; or names the tensors which are missing, unexpected or of another shape. transformers itself would
                fill the gaps with random numbers and only log it.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        # Only then transformers says which shapes differ; they are refused below.
        kwargs["ignore_mismatched_sizes"] = True
        try:
            with _without_load_report():
                model, info = cast(Any, super()).from_pretrained(
                    pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
                )
        except SafetensorError as error:
            raise ValueError(
                f"a safetensors file of {pretrained_model_name_or_path} is damaged or cut off ({error}); save or download "
                "it again"
            ) from error
        model._load_rest(pretrained_model_name_or_path, info, kwargs)
        problems = [
            f"{kind.replace('_', ' ')}: {sorted(map(str, info[kind]))}" for kind in LOADING_PROBLEMS if info[kind]
        ]
        if problems:
            raise ValueError(
                f"{pretrained_model_name_or_path} does not fit {cls.__name__} with backbone "
                f"{model.config.backbone!r}: {'; '.join(problems)}. Load it with the class and configuration that it "
                "was saved from, or convert it with `python -m headshare_hf.hub.convert`."
            )
        _align(model)
        # transformers makes every tensor that it has read trainable.
        model.base_model.backbone.freeze_constants()
        return (model, info) if wants_info else model

    def _load_rest(self, name_or_path: Any, info: dict[str, Any], options: dict[str, Any]) -> None:
        """Reads what a checkpoint keeps in further files, and takes it off `info["missing_keys"]`."""

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """
        As `PreTrainedModel.save_pretrained`. The code of the model is saved too, so that every folder, checkpoints
        included, works with `trust_remote_code=True` where this package is not installed. That is about 100 kB and
        some hundredths of a second, too little for a second kind of folder without it.
        """
        # transformers itself enters the class that is saved alone, but the weights serve both.
        self.config.auto_map = dict(AUTO_MAP)
        super().save_pretrained(save_directory, *args, **kwargs)


@contextlib.contextmanager
def _without_load_report() -> Iterator[None]:
    """
    Keeps transformers from logging which tensors a file lacks: class centers come from another file, and any tensor
    that is really missing is an error here.
    """
    loggers = [
        logging.getLogger(name) for name in ("transformers.modeling_utils", "transformers.utils.loading_report")
    ]
    for logger in loggers:
        logger.addFilter(_is_no_load_report)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_no_load_report)


def _is_no_load_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def _align(model: nn.Module) -> None:
    """
    Moves tensors that are mapped from a file to addresses that a fresh tensor has.

    Kernels sum in another order at an odd address, so that the logits of a reloaded model would differ in the last bit.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % _ALIGNMENT:
            tensor.data = tensor.data.clone()


class HeadShareModel(HeadSharePreTrainedModel):
    """
    Images to embeddings, without any class matrix.

    Args:
        config ([`HeadShareConfig`]): What to build; the weights are drawn at random.

    Raises:
        ValueError: `embedding_size` differs from the backbone's width and the configuration has no `projector`.
    """

    # A checkpoint of the classifier holds this model and its head; leaving the head out is the purpose here.
    _keys_to_ignore_on_load_unexpected = [r"^classifier\."]

    def __init__(self, config: HeadShareConfig) -> None:
        super().__init__(config)
        own_width = config.embedding_size if config.projector is None else None
        self.backbone = create_backbone(
            config.backbone, config.num_channels, config.image_size, own_width, **(config.backbone_kwargs or {})
        )
        width = self.backbone.num_features
        self.projector: nn.Module | None = None
        if config.projector is not None:
            self.projector = create_projector(config.projector, width, config.embedding_size or width)
        elif config.embedding_size not in (None, width):
            raise ValueError(
                f"`embedding_size` is {config.embedding_size} but {config.backbone} has {width} features; set "
                "`projector` to 'linear' or 'linear_bn_relu', or leave `embedding_size` out"
            )
        self.embedding_size: int = config.embedding_size or width
        self.post_init()

    def forward(
        self, pixel_values: torch.Tensor, output_hidden_states: bool | None = None, return_dict: bool | None = None
    ) -> HeadShareModelOutput | tuple:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Images as [`HeadShareImageProcessor`] returns them.
            output_hidden_states (`bool`, *optional*): Also return the stage outputs.
            return_dict (`bool`, *optional*, defaults to `True`): `False` returns a tuple without the empty entries.
        """
        if output_hidden_states is None:
            output_hidden_states = bool(self.config.output_hidden_states)
        features = self.backbone(pixel_values, output_hidden_states=output_hidden_states)
        embeddings = features.embeddings if self.projector is None else self.projector(features.embeddings)
        output = HeadShareModelOutput(embeddings, features.hidden_states, features.pre_activations)
        return output if return_dict is not False else output.to_tuple()


class HeadShareForImageClassification(HeadSharePreTrainedModel):
    """
    [`HeadShareModel`] and a classifier on its embeddings, which [`share_head`] can copy from or into another model.

    Args:
        config ([`HeadShareConfig`]): What to build; the weights are drawn at random.
    """

    def __init__(self, config: HeadShareConfig) -> None:
        super().__init__(config)
        self.headshare = HeadShareModel(config)
        self.classifier = create_head(
            config.head_type,
            self.headshare.embedding_size,
            config.num_labels or 0,
            # Filled in by the configuration where it was not given.
            cast(float, config.head_scale),
            config.head_margin,
            config.head_gradient,
        )
        self.post_init()

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """
        As `PreTrainedModel.save_pretrained`. Class centers (every head but the linear one) go to a file of their own,
        `class_centers.safetensors`, which [`HeadShareModel`] never fetches.
        """
        if isinstance(self.classifier, CosineHead):
            state_dict = kwargs.pop("state_dict", None) or self.state_dict()
            if kwargs.get("is_main_process", True):
                kwargs["state_dict"] = save_class_centers(state_dict, save_directory)
        elif Path(save_directory, CENTERS_FILE).is_file():
            # Of another model that was saved here before.
            Path(save_directory, CENTERS_FILE).unlink()
        super().save_pretrained(save_directory, *args, **kwargs)

    def _get_files_timestamps(self, working_dir: Any) -> dict[str, float]:
        # transformers asks which files were there before it saves, to upload the others; the centers come first here.
        timestamps = super()._get_files_timestamps(working_dir)
        return {name: time for name, time in timestamps.items() if name != CENTERS_FILE}

    def _load_rest(self, name_or_path: Any, info: dict[str, Any], options: dict[str, Any]) -> None:
        if isinstance(self.classifier, CosineHead) and "classifier.weight" in info["missing_keys"]:
            path = find_class_centers(name_or_path, options)
            if path is not None:
                info["missing_keys"] = load_class_centers(self, path, set(info["missing_keys"]))

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> HeadShareImageClassifierOutput | tuple:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Images as [`HeadShareImageProcessor`] returns them.
            labels (`torch.Tensor` of shape `(batch_size,)`, *optional*):
                Class numbers, -1 for images to leave out; adds `loss` to the output, with the margin in training mode.
            output_hidden_states (`bool`, *optional*): Also return the stage outputs.
            return_dict (`bool`, *optional*, defaults to `True`): `False` returns a tuple without the empty entries.
        """
        features = self.headshare(pixel_values, output_hidden_states=output_hidden_states)
        logits = self.classifier(features.embeddings)
        loss = None if labels is None else self._loss(logits, labels, features.embeddings)
        output = HeadShareImageClassifierOutput(
            loss, logits, features.embeddings, features.hidden_states, features.pre_activations
        )
        return output if return_dict is not False else output.to_tuple()

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        if self.training and isinstance(self.classifier, CosineHead):
            logits = self.classifier.margin_logits(logits, labels, embeddings)
        total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED_LABEL, reduction="sum")
        return total / (labels != IGNORED_LABEL).sum().clamp(min=1)
