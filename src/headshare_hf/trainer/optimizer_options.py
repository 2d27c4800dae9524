"""Options of the optimizer: which it has at all, and whether it steps as one kernel."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .backends import wants_deepspeed, wants_fsdp
from .methods import unknown_name


# What transformers reads of `optim_args`; other keys would be lost without a word. Optimizers of further packages are not
# among these, and what is said about them is left to transformers.
_OPTIONS = {
    "sgd": ("momentum", "dampening", "nesterov"),
    "adagrad": ("lr_decay", "eps"),
    "rmsprop": ("momentum", "alpha", "eps", "centered"),
    "adamw_torch": (),
    "adamw_torch_fused": (),
    "adafactor": (),
}
# What is said elsewhere. transformers reads `weight_decay`, but each group of parameters has one of its own.
_FIELDS = {
    "weight_decay": "weight_decay",
    "lr": "learning_rate",
    "fused": "fused_optimizer",
    "beta1": "adam_beta1",
    "beta2": "adam_beta2",
    "eps": "adam_epsilon",
}
_SWITCHES = ("nesterov", "centered")
_SWITCHED = ("true", "1", "yes", "false", "0", "no")
_FUSED = ("sgd", "adamw_torch", "adamw_torch_fused")
_DEVICES = ("cpu", "cuda")


def optimizer_name(args: Any) -> str:
    """`optim` as text."""
    return str(getattr(args.optim, "value", args.optim))


def check_optimizer(args: Any) -> None:
    """
    Args:
        args ([`DistillationConfig`]): Whose optimizer and device are known.

    Raises:
        ValueError: An option of the optimizer would have no effect, or cannot be read; the message names it.
    """
    name = optimizer_name(args)
    if args.optim_args and name in _OPTIONS:
        for option in args.optim_args.replace(" ", "").split(","):
            _check_option(name, *option.partition("="))
    obstacle = _obstacle(args)
    if args.fused_optimizer and obstacle is not None:
        raise ValueError(f"`fused_optimizer` is True, but {obstacle}; leave it out")
    if args.fused_optimizer is False and name == "adamw_torch_fused":
        raise ValueError(f"`fused_optimizer` is False, but `optim` is {name!r}; set it to 'adamw_torch'")


def _check_option(optimizer: str, key: str, sign: str, value: str) -> None:
    if not sign:
        raise ValueError(f"`optim_args` has {key!r} without a value; write name=value, with commas in between")
    if key not in _OPTIONS[optimizer]:
        if key in _FIELDS:
            raise ValueError(f"`{key}` in `optim_args` has no effect; set the field `{_FIELDS[key]}` instead")
        raise ValueError(unknown_name(f"option of {optimizer} in `optim_args`", key, _OPTIONS[optimizer]))
    if key in _SWITCHES and value.lower() not in _SWITCHED:
        raise ValueError(f"`{key}` in `optim_args` is {value!r}; it must be true or false")
    if key not in _SWITCHES and not _is_number(value):
        raise ValueError(f"`{key}` in `optim_args` is {value!r}; it must be a number")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_given_optimizer(optimizer: Any, training_only: Mapping[str, nn.Module]) -> None:
    """
    Args:
        optimizer (`torch.optim.Optimizer`, *optional*): That of the caller, who has made it before there were these layers.
        training_only (`Mapping[str, nn.Module]`): Layers that are trained beside the student, by name.

    Raises:
        ValueError: It does not hold one of their parameters, which would stay random.
    """
    if optimizer is None:
        return
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, module in training_only.items():
        for inner, parameter in module.named_parameters():
            if parameter.requires_grad and id(parameter) not in held:
                raise ValueError(
                    f"the optimizer in `optimizers` does not hold {name}.{inner}, which the trainer has made and which would "
                    "stay random; set `optim` and `optim_args`, or pass `optimizer_cls_and_kwargs`, so that the trainer "
                    "makes the optimizer of all that is trained"
                )


def uses_fused(args: Any) -> bool:
    """Whether the optimizer steps as one kernel for all parameters; see `fused_optimizer` of [`DistillationConfig`]."""
    return args.fused_optimizer is not False and _obstacle(args) is None


def _obstacle(args: Any) -> str | None:
    if optimizer_name(args) not in _FUSED:
        return f"`optim` is {optimizer_name(args)!r}, and only {', '.join(_FUSED)} have such a form"
    if args.device.type not in _DEVICES:
        return f"the device is {args.device.type!r}, and it is used on {' and '.join(_DEVICES)} alone"
    if args.fp16:
        # It leaves out a step itself, where the scale of the loss was too large, and nobody learns of it.
        return "with `fp16` the learning rate would go on at steps that are left out"
    if optimizer_name(args) == "sgd" and "dampening" in (args.optim_args or ""):
        return "with dampening it starts a parameter that gets its first gradient later than others another way"
    if wants_fsdp(args) or wants_deepspeed(args):
        return "FSDP and DeepSpeed split what it works on"
    return None


def keep_form(optimizer: torch.optim.Optimizer) -> None:
    """
    Makes a fused optimizer one that stays so, and one that is not likewise, whichever a checkpoint was written by.

    Args:
        optimizer (`torch.optim.Optimizer`): New. One that has no fused form is left alone.
    """
    if "fused" in optimizer.defaults:
        optimizer.register_load_state_dict_pre_hook(_with_own_form)
        optimizer.register_load_state_dict_post_hook(_lay_out)
    if isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["fused"]:
        optimizer.register_step_pre_hook(_start_late_ones)


def _start_late_ones(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    # torch's fused SGD makes momentum for all parameters at once and fails where some get their first gradient later.
    # Zeros are what the first step would make, as long as nothing dampens it.
    for group in optimizer.param_groups:
        moved = [parameter for parameter in group["params"] if parameter.grad is not None] if group["momentum"] else []
        late = [parameter for parameter in moved if optimizer.state[parameter].get("momentum_buffer") is None]
        if len(late) < len(moved):
            for parameter in late:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _with_own_form(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    groups = [{**group, "fused": optimizer.defaults["fused"]} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    # The kernel goes through memory without asking for the layout, which may be another one where the run was before.
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
