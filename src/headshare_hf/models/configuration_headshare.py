"""The configuration of every model of this package."""

import difflib
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .backbones import check_backbone_name


PLACEHOLDER_LABEL = "LABEL_{}"


@strict
class HeadShareConfig(PreTrainedConfig):
    """
    Configuration of [`HeadShareModel`] and [`HeadShareForImageClassification`].

    Args:
        backbone (`str`, *optional*, defaults to `"resnet8x4"`):
            Name of the feature extractor: one of the 32-pixel networks (`resnet8`, `wrn_16_2`, `vgg8`, ...) or
            `timm/<any timm name>`.
        backbone_kwargs (`dict`, *optional*):
            Further keyword arguments of the backbone, e.g. `{"drop_rate": 0.3}` for a WRN or timm's own.
        embedding_size (`int`, *optional*):
            Width D of the embedding that the classifier reads. `None` takes the backbone's own width; another value
            needs a `projector`.
        projector (`str`, *optional*):
            `"linear"` or `"linear_bn_relu"`: a layer from the backbone's width to `embedding_size`, part of the model.
            `None` (default): none.
        head_type (`str`, *optional*, defaults to `"linear"`):
            `"linear"` (weight and bias) or `"cosine"` (`head_scale` times the cosine of embedding and class center).
        head_scale (`float`, *optional*, defaults to `16.0`):
            Scale s of the cosine head; unused by the linear one.
        image_size (`int`, *optional*, defaults to `32`):
            Height and width, in pixels, that the weights were trained with. The 32-pixel networks pool globally and
            accept other sizes.
        num_channels (`int`, *optional*, defaults to `3`):
            Channels of the input images.

    `num_labels`, `id2label` and `label2id` are those of every transformers configuration.

    Raises:
        ValueError: Names the field and what is allowed.
    """

    model_type = "headshare"
    # So that the plain transformers Trainer takes the logits alone for predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["embeddings", "hidden_states", "pre_activations"]
    head_types: ClassVar[tuple[str, ...]] = ("linear", "cosine")
    projectors: ClassVar[tuple[str, ...]] = ("linear", "linear_bn_relu")

    backbone: str = "resnet8x4"
    backbone_kwargs: dict[str, Any] | None = None
    embedding_size: int | None = None
    projector: str | None = None
    head_type: str = "linear"
    head_scale: float | int = 16.0
    image_size: int = 32
    num_channels: int = 3

    def __post_init__(self, **kwargs: Any) -> None:
        self._refuse_misspelled(kwargs)
        check_backbone_name(self.backbone)
        given = kwargs.get("num_labels")
        if given is not None and self.id2label is not None and given != len(self.id2label):
            raise ValueError(f"`num_labels` is {given} but `id2label` names {len(self.id2label)} classes")
        super().__post_init__(**kwargs)
        if self.id2label is not None and self.label2id is None:
            self.label2id = {str(name): int(index) for index, name in self.id2label.items()}

    def _refuse_misspelled(self, kwargs: dict[str, Any]) -> None:
        # PreTrainedConfig stores unknown keys as attributes; a misspelled field would then be an option nobody reads.
        own = list(HeadShareConfig.__annotations__)
        for key in kwargs:
            close = difflib.get_close_matches(key, own, n=1, cutoff=0.8)
            if close:
                raise ValueError(f"HeadShareConfig has no field `{key}`; did you mean `{close[0]}`?")

    def validate_head(self) -> None:
        """Checks `head_type`, `head_scale` and `projector`."""
        if self.head_type not in self.head_types:
            raise ValueError(f"`head_type` is {self.head_type!r}; allowed: {', '.join(self.head_types)}")
        if self.head_scale <= 0:
            raise ValueError(f"`head_scale` is {self.head_scale}; it must be positive")
        if self.projector is not None and self.projector not in self.projectors:
            raise ValueError(f"`projector` is {self.projector!r}; allowed: None, {', '.join(self.projectors)}")
        if self.projector is not None and self.embedding_size is None:
            raise ValueError("`projector` needs `embedding_size`, the width to project to")

    def validate_sizes(self) -> None:
        """Checks that every size is positive and that there is a class at all."""
        for name in ("embedding_size", "image_size", "num_channels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` is {value}; it must be at least 1")
        if not self.num_labels:
            raise ValueError("`num_labels` is 0; it must be at least 1")


def has_placeholder_labels(config: PreTrainedConfig) -> bool:
    """Whether `id2label` is the `LABEL_0, LABEL_1, ...` that transformers fills in, which names no class at all."""
    return all(name == PLACEHOLDER_LABEL.format(index) for index, name in (config.id2label or {}).items())
