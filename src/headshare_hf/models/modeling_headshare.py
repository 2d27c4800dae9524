"""The two models: embeddings alone, and embeddings with a shareable classifier."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers.utils import ModelOutput
from transformers.utils.generic import maybe_autocast

from .backbones import create_backbone
from .class_centers import find_class_centers, load_class_centers, save_class_centers
from .configuration_headshare import HeadShareConfig
from .heads import IGNORED_LABEL, CosineHead, create_head, create_projector
from .map_projector import MapProjector
from .pretrained_headshare import HeadSharePreTrainedModel


@dataclass
class HeadShareModelOutput(ModelOutput):
    """
    Output of [`HeadShareModel`].

    Args:
        embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): What a classifier reads.
        hidden_states (`tuple[torch.Tensor, ...]`, *optional*):
            Feature maps `(batch_size, channels, height, width)` of the stem and every stage, after the last activation.
        pre_activations (`tuple[torch.Tensor, ...]`, *optional*): The same maps before that activation.
        final_map (`torch.Tensor` of shape `(batch_size, channels, height, width)`, *optional*):
            With the stage outputs: the map whose mean over all positions the embedding is, or what `projector` reads.
            `None` of networks that pool otherwise. It is that of the last stage, or made of it.
    """

    embeddings: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    pre_activations: tuple[torch.Tensor, ...] | None = None
    final_map: torch.Tensor | None = None


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
        final_map (`torch.Tensor`, *optional*): See [`HeadShareModelOutput`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    embeddings: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    pre_activations: tuple[torch.Tensor, ...] | None = None
    final_map: torch.Tensor | None = None


class HeadShareModel(HeadSharePreTrainedModel):
    """
    Images to embeddings, without any class matrix.

    Args:
        config ([`HeadShareConfig`]): What to build; the weights are drawn at random.

    Raises:
        ValueError: `embedding_size` differs from the backbone's width and the configuration has no `projector`; or a
            `map_projector` has no map to read.
    """

    # A checkpoint of the classifier holds this model and its head; leaving the head out is the purpose here.
    _keys_to_ignore_on_load_unexpected = [r"^classifier\."]

    def __init__(self, config: HeadShareConfig) -> None:
        super().__init__(config)
        projects = config.projector is not None or config.map_projector is not None
        own_width = None if projects else config.embedding_size
        self.backbone = create_backbone(
            config.backbone, config.num_channels, config.image_size, own_width, **(config.backbone_kwargs or {})
        )
        width = self.backbone.num_features
        self.map_projector: MapProjector | None = None
        if config.map_projector is not None:
            self.map_projector = self._create_map_projector(config, width)
            width = config.map_projector["out_channels"]
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

    def _create_map_projector(self, config: HeadShareConfig, channels: int) -> MapProjector:
        if not self.backbone.pools_final_map:
            raise ValueError(
                f"`map_projector` needs a backbone that averages its last map over all positions, and {config.backbone} "
                "does not, or does not show it; take a resnet, wrn, vgg, MobileNetV2, ShuffleV1 or ShuffleV2"
            )
        return MapProjector(channels, **(config.map_projector or {}))

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
        if self.map_projector is not None:
            features = self.map_projector.project(features)
        embeddings = features.embeddings if self.projector is None else self.projector(features.embeddings)
        final_map = features.final_map if output_hidden_states else None
        output = HeadShareModelOutput(embeddings, features.hidden_states, features.pre_activations, final_map)
        return output if return_dict is not False else output.to_tuple()


class HeadShareForImageClassification(HeadSharePreTrainedModel):
    """
    [`HeadShareModel`] and a classifier on its embeddings, which [`share_head`] can copy from or into another model.

    It is saved with its class centers (every head but the linear one) in a file of their own,
    `class_centers.safetensors`, which [`HeadShareModel`] never fetches.

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

    def _save_rest(self, folder: Any, options: dict[str, Any]) -> None:
        # Class centers go to a file of their own, which HeadShareModel never fetches.
        if isinstance(self.classifier, CosineHead):
            state_dict = options.pop("state_dict", None) or self.state_dict()
            if options.get("is_main_process", True):
                options["state_dict"] = save_class_centers(state_dict, folder)
        else:
            super()._save_rest(folder, options)

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
        logits = self._logits(features.embeddings)
        loss = None if labels is None else self._loss(logits, labels, features.embeddings)
        output = HeadShareImageClassifierOutput(
            loss, logits, features.embeddings, features.hidden_states, features.pre_activations, features.final_map
        )
        return output if return_dict is not False else output.to_tuple()

    def _logits(self, embeddings: torch.Tensor) -> torch.Tensor:
        device = embeddings.device.type
        if self.training or device == "meta" or not torch.is_autocast_enabled(device):
            return self.classifier(embeddings)
        # Scores that are rounded to 8 bits tie, and a tie is no right answer.
        with maybe_autocast(device, enabled=False):
            return self.classifier(embeddings.to(cast(torch.Tensor, self.classifier.weight).dtype))

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        if self.training and isinstance(self.classifier, CosineHead):
            logits = self.classifier.margin_logits(logits, labels, embeddings)
        total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED_LABEL, reduction="sum")
        return total / (labels != IGNORED_LABEL).sum().clamp(min=1)
