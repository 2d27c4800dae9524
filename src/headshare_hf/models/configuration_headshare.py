"""The configuration of every model of this package."""

import copy
import difflib
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .backbone_face import height_and_width
from .backbones import check_backbone_name
from .heads import DEFAULT_MARGINS, HEAD_TYPES
from .hub_cache import CONFIG_FILE, explained
from .margins import GRADIENTS
from .thresholds import check_thresholds


PLACEHOLDER_LABEL = "LABEL_{}"


@strict
class HeadShareConfig(PreTrainedConfig):
    """
    Configuration of [`HeadShareModel`] and [`HeadShareForImageClassification`].

    Args:
        backbone (`str`, *optional*, defaults to `"resnet8x4"`):
            Name of the feature extractor: one of the 32-pixel networks (`resnet8`, `wrn_16_2`, `vgg8`, ...), a face
            network (`mobilefacenet`, `iresnet50`, ...) or `timm/<any timm name>`.
        backbone_kwargs (`dict`, *optional*):
            Further keyword arguments of the backbone, e.g. `{"drop_rate": 0.3}` for a WRN or timm's own.
        embedding_size (`int`, *optional*):
            Width D of the embedding that the classifier reads. `None` takes the backbone's own width. A face network
            without `projector` is built with this width; any other backbone needs a `projector` for another one.
        projector (`str`, *optional*):
            `"linear"` or `"linear_bn_relu"`: a layer from the backbone's width to `embedding_size`, part of the model.
            `None` (default): none.
        map_projector (`dict`, *optional*):
            `{"out_channels": ...}`, and `reduction` or `size` if need be: a [`MapProjector`] of the last feature map, whose
            mean is then the embedding; part of the model, as SimKD needs it. Excludes `projector`.
        head_type (`str`, *optional*, defaults to `"linear"`):
            `"linear"` (weight and bias), `"cosine"` (`head_scale` times the cosine of embedding and class center), or
            one of the face heads, which are cosine heads trained with a margin: `"arcface"`, `"cosface"`,
            `"combined"`, `"adaface"`.
        head_scale (`float`, *optional*):
            Scale s of all heads but the linear one, which does not use it. Defaults to 64 for the face heads and to 16
            otherwise.
        head_margin (`float` or `list[float]`, *optional*):
            Margin of a face head: radians for `"arcface"` (defaults to 0.5), a difference of cosines for `"cosface"`
            (0.4), m for `"adaface"` (0.4), and for `"combined"` the three numbers of cos(m1 · θ + m2) − m3.
        head_gradient (`str`, *optional*, defaults to `"true"`):
            `"true"` or `"straight_through"`: the derivative of the margin, see [`CombinedMargin`].
        image_size (`int` or `list[int]`, *optional*, defaults to `32`):
            Height and width in pixels, `[height, width]` or one number for both, that the weights were trained with.
            The 32-pixel networks pool globally and accept other sizes. A face network is built for this size alone:
            set 112 for published weights, `[112, 96]` for those of `mobilefacenet_112x96`.
        num_channels (`int`, *optional*, defaults to `3`):
            Channels of the input images.
        verification_thresholds (`list[dict]`, *optional*):
            Similarities from which on two images are taken for the same person, measured on a set of pairs; one entry
            a FAR, all with the same `flip`. Keys: `far` (false accept rate, in (0, 1)), `rule` (`"at_most"` or
            `"nearest"`, see [`Roc`]), `similarity` (cosine in [-1, 1]), `set` (name of the set), `num_impostor`
            (its pairs of two people), `flip` (whether the embedding of the mirrored image was added).

    `num_labels`, `id2label` and `label2id` are those of every transformers configuration.

    Raises:
        ValueError: Names the field and what is allowed.
    """

    model_type = "headshare"
    # So that the plain transformers Trainer takes the logits alone for predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "embeddings",
        "hidden_states",
        "pre_activations",
        "final_map",
    ]
    head_types: ClassVar[tuple[str, ...]] = HEAD_TYPES
    projectors: ClassVar[tuple[str, ...]] = ("linear", "linear_bn_relu")

    backbone: str = "resnet8x4"
    backbone_kwargs: dict[str, Any] | None = None
    embedding_size: int | None = None
    projector: str | None = None
    map_projector: dict[str, Any] | None = None
    head_type: str = "linear"
    head_scale: float | int | None = None
    head_margin: float | int | list[float | int] | None = None
    head_gradient: str = "true"
    image_size: int | list[int] = 32
    num_channels: int = 3
    verification_thresholds: list[dict[str, Any]] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self._refuse_misspelled(kwargs)
        check_backbone_name(self.backbone)
        if self.head_scale is None:
            self.head_scale = 64.0 if self.head_type in (*DEFAULT_MARGINS, "combined") else 16.0
        if self.head_margin is None:
            self.head_margin = DEFAULT_MARGINS.get(self.head_type)
        given = kwargs.get("num_labels")
        if given is not None and self.id2label is not None and given != len(self.id2label):
            raise ValueError(f"`num_labels` is {given} but `id2label` names {len(self.id2label)} classes")
        super().__post_init__(**kwargs)
        if self.id2label is not None and self.label2id is None:
            self.label2id = {str(name): int(index) for index, name in self.id2label.items()}

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        As `PreTrainedConfig.get_config_dict`, which every way of loading a configuration calls.

        Raises:
            FileNotFoundError: Folder or repository have no configuration, or an empty one.
            OSError: There is no such model, or it is neither in the cache nor to be reached; tells what the cache holds.
        """
        with explained(pretrained_model_name_or_path, kwargs, CONFIG_FILE):
            content, rest = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        # transformers takes a missing file for one without any field: a model of another kind would load its weights.
        if not content:
            file = "/".join(filter(None, (kwargs.get("subfolder"), CONFIG_FILE)))
            raise FileNotFoundError(
                f"{pretrained_model_name_or_path} has no {file}, or an empty one; save the model again with "
                "`save_pretrained`, which writes it"
            )
        return content, rest

    def to_dict(self) -> dict[str, Any]:
        """
        As `PreTrainedConfig.to_dict`, with `num_labels` in place of names that are no names: for the 93,431 identities
        of a face data set they are 5 MB.
        """
        # transformers copies every field to its depth, which takes seconds for a million names.
        nameless = copy.copy(self)
        vars(nameless).update(id2label=None, label2id=None)
        content = super(HeadShareConfig, nameless).to_dict()
        if self.id2label is not None and has_placeholder_labels(self):
            content = {key: value for key, value in content.items() if key not in ("id2label", "label2id")}
            content["num_labels"] = self.num_labels
            return content
        names = {"id2label": self.id2label, "label2id": self.label2id}
        return {**content, **{key: value if value is None else dict(value) for key, value in names.items()}}

    def _refuse_misspelled(self, kwargs: dict[str, Any]) -> None:
        # PreTrainedConfig stores unknown keys as attributes; a misspelled field would then be an option nobody reads.
        own = list(HeadShareConfig.__annotations__)
        for key in kwargs:
            close = difflib.get_close_matches(key, own, n=1, cutoff=0.8)
            if close:
                raise ValueError(f"HeadShareConfig has no field `{key}`; did you mean `{close[0]}`?")

    def validate_head(self) -> None:
        """Checks `head_type`, `head_scale` and `head_gradient`."""
        if self.head_type not in self.head_types:
            raise ValueError(f"`head_type` is {self.head_type!r}; allowed: {', '.join(self.head_types)}")
        if self.head_scale is not None and self.head_scale <= 0:
            raise ValueError(f"`head_scale` is {self.head_scale}; it must be positive")
        if self.head_gradient not in GRADIENTS:
            raise ValueError(f"`head_gradient` is {self.head_gradient!r}; allowed: {', '.join(GRADIENTS)}")

    def validate_margin(self) -> None:
        """Checks `head_margin`."""
        margin = self.head_margin
        if self.head_type in ("linear", "cosine"):
            if margin is not None:
                raise ValueError(f"`head_margin` has no effect on a {self.head_type} head; leave it out")
        elif self.head_type == "combined":
            if not isinstance(margin, list) or len(margin) != 3:
                raise ValueError(f"`head_margin` is {margin}; a combined head needs the list [m1, m2, m3]")
            if margin[0] <= 0 or margin[1] < 0 or margin[2] < 0:
                raise ValueError(f"`head_margin` is {margin}; m1 must be positive, m2 and m3 not negative")
            if margin[0] > 1 and self.head_gradient == "true":
                raise ValueError(
                    f"`head_margin` is {margin}; with m1 above 1 the true derivative is negative for much of the range, "
                    "set `head_gradient='straight_through'`"
                )
        elif isinstance(margin, list) or margin is None or margin < 0:
            raise ValueError(f"`head_margin` is {margin}; {self.head_type} takes one number that is not negative")

    def validate_projector(self) -> None:
        """Checks `projector`."""
        if self.projector is not None and self.projector not in self.projectors:
            raise ValueError(f"`projector` is {self.projector!r}; allowed: None, {', '.join(self.projectors)}")
        if self.projector is not None and self.embedding_size is None:
            raise ValueError("`projector` needs `embedding_size`, the width to project to")

    def validate_map_projector(self) -> None:
        """Checks `map_projector`."""
        given = self.map_projector
        if given is None:
            return
        unknown = sorted(set(given) - {"out_channels", "reduction", "size"})
        if unknown or not isinstance(given.get("out_channels"), int) or given["out_channels"] < 1:
            raise ValueError(
                f"`map_projector` is {given}; it needs `out_channels`, a positive integer, and may have `reduction` and `size`"
            )
        if self.projector is not None or self.embedding_size not in (None, given["out_channels"]):
            raise ValueError(
                f"`map_projector` makes embeddings of width {given['out_channels']}; leave out `projector` and `embedding_size`"
            )
        size = given.get("size")
        if size is not None and (not isinstance(size, list) or len(size) != 2):
            raise ValueError(f"`size` of `map_projector` is {size}; it must be [height, width]")

    def validate_sizes(self) -> None:
        """Checks that every size is positive and that there is a class at all."""
        for name in ("embedding_size", "num_channels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` is {value}; it must be at least 1")
        height_and_width(self.image_size)
        if not self.num_labels:
            raise ValueError("`num_labels` is 0; it must be at least 1")

    def validate_verification_thresholds(self) -> None:
        """Checks `verification_thresholds`."""
        entries = self.verification_thresholds
        if entries is not None:
            check_thresholds(entries)

    def validate_backbone_kwargs(self) -> None:
        """Checks that `backbone_kwargs` repeats no field."""
        for name in ("embedding_size", "image_size", "num_channels"):
            if name in (self.backbone_kwargs or {}):
                raise ValueError(f"`backbone_kwargs` has `{name}`, which is a field of its own; set the field instead")


def has_placeholder_labels(config: PreTrainedConfig) -> bool:
    """Whether `id2label` is the `LABEL_0, LABEL_1, ...` that transformers fills in, which names no class at all."""
    return all(name == PLACEHOLDER_LABEL.format(index) for index, name in (config.id2label or {}).items())
