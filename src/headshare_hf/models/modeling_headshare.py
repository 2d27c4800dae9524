"""The two models: embeddings alone, and embeddings with a shareable classifier."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .backbones import create_backbone
from .configuration_headshare import HeadShareConfig
from .heads import create_head, create_projector


# Bytes; what torch allocates on the CPU starts at a multiple of it.
_ALIGNMENT = 64
LOADING_PROBLEMS = ("missing_keys", "unexpected_keys", "mismatched_keys")


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
            ValueError: Names the tensors which are missing, unexpected or of another shape. transformers itself would
                fill the gaps with random numbers and only log it.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        # Only then transformers says which shapes differ; they are refused below.
        kwargs["ignore_mismatched_sizes"] = True
        model, info = cast(Any, super()).from_pretrained(
            pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
        )
        problems = [
            f"{kind.replace('_', ' ')}: {sorted(map(str, info[kind]))}" for kind in LOADING_PROBLEMS if info[kind]
        ]
        if problems:
            raise ValueError(
                f"{pretrained_model_name_or_path} does not fit {cls.__name__} with backbone "
                f"{model.config.backbone!r}: {'; '.join(problems)}. Load it with the class and configuration that it "
                "was saved from, or convert it with `headshare_hf.hub.convert_state_dict`."
            )
        _align(model)
        return (model, info) if wants_info else model


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
        self.backbone = create_backbone(config.backbone, config.num_channels, **(config.backbone_kwargs or {}))
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
            config.head_type, self.headshare.embedding_size, config.num_labels or 0, config.head_scale
        )
        self.post_init()

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
            labels (`torch.Tensor` of shape `(batch_size,)`, *optional*): Class numbers; adds `loss` to the output.
            output_hidden_states (`bool`, *optional*): Also return the stage outputs.
            return_dict (`bool`, *optional*, defaults to `True`): `False` returns a tuple without the empty entries.
        """
        features = self.headshare(pixel_values, output_hidden_states=output_hidden_states)
        logits = self.classifier(features.embeddings)
        loss = None if labels is None else F.cross_entropy(logits.float(), labels)
        output = HeadShareImageClassifierOutput(
            loss, logits, features.embeddings, features.hidden_states, features.pre_activations
        )
        return output if return_dict is not False else output.to_tuple()
