"""Every image model of timm as a backbone, through transformers' `TimmWrapperModel`."""

from typing import Any

import torch
from torch import nn
from transformers import TimmWrapperConfig, TimmWrapperModel, initialization

from .backbone import Backbone, BackboneOutput
from .backbone_staged import check_pixel_values


_OWN_ARGUMENTS = ("checkpoint_path", "features_only", "in_chans", "num_classes", "pretrained")


class _TimmModel(TimmWrapperModel):
    """`TimmWrapperModel` that leaves the weights as timm drew them."""

    def _init_weights(self, module: nn.Module) -> None:
        # TimmWrapperModel would draw every layer again from N(0, 0.02) and so undo timm's initialisation. Only the
        # tables that timm keeps out of checkpoints are computed again: from_pretrained builds on the meta device.
        refill = getattr(module, "init_non_persistent_buffers", None)
        if refill is not None:
            refill()


class TimmBackbone(Backbone):
    """
    A timm model without its classifier. Nothing is downloaded: the weights are timm's random ones.

    `hidden_states` are what timm's `forward_intermediates` returns: one map `(batch_size, channels, height, width)`
    per stage, or per block of a transformer. timm does not tell where their last activation is, so `pre_activations`
    is the same tuple.

    Args:
        architecture (`str`): timm's name of the model, e.g. `mobilenetv3_small_050`.
        num_channels (`int`, *optional*, defaults to 3): Channels of the input images.
        model_args (keyword arguments): Passed to timm, e.g. `img_size=64` or `drop_path_rate=0.1`.

    Raises:
        ValueError: timm refuses an argument, or one of them is set by this class.
    """

    def __init__(self, architecture: str, num_channels: int = 3, **model_args: Any) -> None:
        super().__init__()
        refused = sorted(set(model_args) & set(_OWN_ARGUMENTS))
        if refused:
            raise ValueError(
                f"timm/{architecture} does not take the keyword {', '.join(refused)}, which this package sets itself; "
                "use `num_channels`, `num_labels` and `from_pretrained`"
            )
        self.num_channels = num_channels
        self.timm_config = TimmWrapperConfig(
            architecture=architecture, model_args={**model_args, "in_chans": num_channels}
        )
        self.model = self._build()
        self.num_features: int = self.model.timm_model.head_hidden_size

    def _build(self) -> _TimmModel:
        try:
            return _TimmModel(self.timm_config)
        except (TypeError, RuntimeError) as error:
            raise ValueError(
                f"timm cannot build {self.timm_config.architecture} with {self.timm_config.model_args}: {error}"
            ) from error

    def forward(self, pixel_values: torch.Tensor, output_hidden_states: bool = False) -> BackboneOutput:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Normalised images.
            output_hidden_states (`bool`, *optional*, defaults to `False`): Also return the intermediate maps.

        Raises:
            ValueError: Another number of channels, another size than a model with fixed size was built for, a model
                without `forward_intermediates`, or one that does not pool.
        """
        check_pixel_values(pixel_values, self.num_channels)
        self._check_fixed_size(pixel_values)
        output = self.model(pixel_values, output_hidden_states=output_hidden_states, do_pooling=True, return_dict=True)
        if output.pooler_output.ndim != 2:
            raise ValueError(
                f"timm/{self.timm_config.architecture} returns {tuple(output.pooler_output.shape)} instead of one "
                "vector per image; choose a pooling `global_pool` in `backbone_kwargs`"
            )
        maps = tuple(output.hidden_states) if output_hidden_states else None
        return BackboneOutput(output.pooler_output, maps, maps)

    def _check_fixed_size(self, pixel_values: torch.Tensor) -> None:
        patches = getattr(self.model.timm_model, "patch_embed", None)
        if patches is None or not getattr(patches, "strict_img_size", False) or patches.img_size is None:
            return
        expected, got = tuple(patches.img_size), tuple(pixel_values.shape[2:])
        if expected != got:
            raise ValueError(
                f"timm/{self.timm_config.architecture} was built for images of {expected} pixels, got {got}; resize "
                "them or set `img_size` in `backbone_kwargs`"
            )

    def reset_parameters(self) -> None:
        """
        Draws the weights as timm does, by building the model once more and copying.

        timm models initialise themselves in their constructors, in part by arithmetic on the tensors and with methods
        whose names differ from model to model; a second build is the only way that holds for all of them. Tensors that
        `from_pretrained` has read keep their values. It does not get here itself: transformers initialises only
        modules that own a tensor, which is why `_TimmModel` refills the tables.
        """
        drawn = self._build()
        with torch.no_grad():
            for own, fresh in zip(_tensors(self.model), _tensors(drawn), strict=True):
                initialization.copy_(own, fresh)


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]
