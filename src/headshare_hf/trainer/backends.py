"""Ways to share the work between processes: which can go together with a teacher outside of them."""

import os
from typing import Any

from accelerate.utils import FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy

from ..models import HeadShareForImageClassification


def wants_fsdp(args: Any) -> bool:
    """Whether `TrainingArguments` or the launcher ask for FSDP."""
    return bool(args.fsdp) or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def wants_deepspeed(args: Any) -> bool:
    """Whether `TrainingArguments` or the launcher ask for DeepSpeed."""
    return bool(args.deepspeed) or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def resolve_ddp(args: Any, student: Any, losses: nn.Module) -> None:
    """
    Decides `ddp_find_unused_parameters` where the user has not: all parameters of this package's students get a gradient, so
    that DDP need not search the graph at each step. Those of others may not, as a part of CLIP's.

    Args:
        args ([`DistillationConfig`]): Whose field is set.
        student (`nn.Module`): What learns.
        losses (`nn.Module`): The losses that are modules. Where one has layers that learn, these are called outside of what
            DDP wraps: its search would count them as unused, and then meet their gradients.

    Raises:
        ValueError: The search is asked for beside such layers, in several processes.
    """
    learns = any(parameter.requires_grad for parameter in losses.parameters())
    if learns and args.ddp_find_unused_parameters and args.world_size > 1:
        raise ValueError(
            "`ddp_find_unused_parameters` is set beside a loss with layers of its own: DDP would take these for unused, and end "
            "the run at their gradients; leave it out, and freeze what gets no gradient in the student, if anything, with "
            "`parameter.requires_grad_(False)`"
        )
    if args.ddp_find_unused_parameters is None:
        known = learns or isinstance(student, HeadShareForImageClassification)
        args.ddp_find_unused_parameters = False if known else None


def check_backends(trainer: Any) -> None:
    """
    Args:
        trainer (`transformers.Trainer`): Before anything of it is prepared.

    Raises:
        ValueError: The processes share the work in a way that is not supported; the message says what to change.
    """
    if trainer.args.n_gpu > 1:
        raise ValueError(
            "several GPUs in one process are not supported; start one process a GPU with `accelerate launch`, or "
            "choose one with CUDA_VISIBLE_DEVICES"
        )
    if trainer.is_deepspeed_enabled:
        check_deepspeed(trainer.accelerator.state.deepspeed_plugin.deepspeed_config)
    if trainer.is_fsdp_enabled:
        check_fsdp(trainer.accelerator.state.fsdp_plugin)
    elif wants_fsdp(trainer.args) or (wants_deepspeed(trainer.args) and not trainer.is_deepspeed_enabled):
        raise ValueError(
            "FSDP or DeepSpeed is asked for, but accelerate leaves it out here: it takes processes that were launched and "
            "have a GPU each. Without it the same run is data parallel (DDP)"
        )


def check_fsdp(plugin: FullyShardedDataParallelPlugin) -> None:
    """
    Raises:
        ValueError: An option of FSDP that does not go together with a teacher outside of it, or was not tried.
    """
    if plugin.fsdp_version != 2:
        raise ValueError(
            "version 1 of FSDP is not supported; set `fsdp_version: 2` in the configuration of accelerate, or "
            "`fsdp_config={'version': 2}`"
        )
    if plugin.cpu_ram_efficient_loading:
        raise ValueError(
            "`cpu_ram_efficient_loading` loads weights in the first process only, so that the teacher of the others, which "
            "FSDP does not see, would be random; set it to false"
        )
    if plugin.auto_wrap_policy is size_based_auto_wrap_policy:
        raise ValueError(
            "with SIZE_BASED_WRAP accelerate would split lists of layers, which FSDP2 refuses; set `fsdp_auto_wrap_policy: "
            "TRANSFORMER_BASED_WRAP`, and name classes of blocks in `fsdp_transformer_layer_cls_to_wrap` if transformers "
            "knows none"
        )
    offloads = isinstance(plugin.cpu_offload, CPUOffloadPolicy)
    for name, is_set in (("offload_params", offloads), ("activation_checkpointing", plugin.activation_checkpointing)):
        if is_set:
            raise ValueError(f"`{name}` of FSDP is not supported; set it to false")


def check_deepspeed(config: dict[str, Any]) -> None:
    """
    Args:
        config (`dict[str, Any]`): Of DeepSpeed, with what accelerate and transformers have filled in.

    Raises:
        ValueError: Weights would be split or rounded, or the optimizer be another than that of the run.
    """
    stage = config["zero_optimization"]["stage"]
    if stage not in (1, 2):
        raise ValueError(
            f"ZeRO stage {stage} is not supported; use stage 1 or 2, which split the optimizer and the gradients, or FSDP2 "
            "(`fsdp_version: 2`), which splits the weights too"
        )
    for name in ("bf16", "fp16"):
        if config.get(name, {}).get("enabled") is True:
            raise ValueError(
                f"DeepSpeed would convert the student's weights for `{name}`; leave it out, and for mixed precision set "
                "`torch_autocast` in the configuration file of DeepSpeed"
            )
    for name in ("optimizer", "scheduler"):
        if name in config:
            raise ValueError(
                f"DeepSpeed has a section `{name}`, which would replace that of the run; leave it out and set `optim`, "
                "`lr_scheduler_type` and their options"
            )
