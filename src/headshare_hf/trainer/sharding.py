"""FSDP2: a student whose weights are split over the processes, and whole tensors where somebody needs them."""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from ..models.margins import AdaptiveMargin


def prepare_for_sharding(module: nn.Module, accelerator: Accelerator) -> None:
    """
    Makes a student ready for FSDP or DeepSpeed, which take it over when the training starts.

    accelerate leaves mixed precision to FSDP, which rounds all weights before they are used, class centers too. Here the
    student computes in autocast from float32 weights, as in one process.

    Args:
        module (`nn.Module`): What is going to be trained.
        accelerator (`accelerate.Accelerator`): With the plugin of FSDP or DeepSpeed.
    """
    # Images may be in channels_last, but both cut only tensors that are contiguous.
    module.to(accelerator.device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if accelerator.is_fsdp2:
        accelerator.state.fsdp_plugin.mixed_precision_policy = None
        accelerator.prepare_model(module, evaluation_mode=True)
    margins = [margin for margin in module.modules() if isinstance(margin, AdaptiveMargin)]
    if margins:
        # Its running means decide what is learned. DDP would bring those of the first process at every step.
        statistics = [buffer for margin in margins for buffer in margin.buffers()]
        module.register_forward_pre_hook(lambda module, _: share(statistics) if module.training else None)


def share(tensors: Iterable[torch.Tensor]) -> None:
    """Gives every process the values that the first one has, in place."""
    for tensor in tensors:
        broadcast(tensor.detach(), from_process=0)


def share_start(module: nn.Module) -> None:
    """
    Starts every process from the weights of the first one, as DDP does. FSDP2 takes a part from each process as it is,
    and networks that were drawn from different seeds would be mixed.
    """
    if not is_sharded(module):
        share(chain(module.parameters(), module.buffers()))


def is_sharded(module: nn.Module) -> bool:
    """Whether weights of `module` are split over the processes."""
    return any(isinstance(tensor, DTensor) for tensor in module.state_dict().values())


def plain_class(module: nn.Module) -> Any:
    """The class of `module`, which FSDP2 replaces by one of its own."""
    return next(base for base in type(module).__mro__ if not issubclass(base, FSDPModule))


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` without gradient and, if it is split, gathered: every process has to call this then."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process has of `tensor`."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """The state of `module`, with split tensors gathered on the CPU. Every process has to call this."""
    state = module.state_dict()
    return {name: whole(t).cpu() if isinstance(t, DTensor) else t for name, t in state.items()}


def load_whole_state(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """
    `module.load_state_dict(state)`, of which each process takes its part where the weights are split.

    Args:
        module (`nn.Module`): Whole or split.
        state (`Mapping[str, torch.Tensor]`): Whole tensors, the same in every process.
    """
    targets = module.state_dict()
    module.load_state_dict({name: _like(targets.get(name), value) for name, value in state.items()})


def _like(target: Any, value: torch.Tensor) -> torch.Tensor:
    if not isinstance(target, DTensor):
        return value
    mesh = target.device_mesh
    # Every process has the whole, so that nothing needs to be sent.
    return distribute_tensor(value.to(mesh.device_type), mesh, target.placements, src_data_rank=None)


def whole_copy(model: Any) -> Any:
    """A plain model with the weights of one that is split. Every process has to call this."""
    state = whole_state(model)
    # Without disturbing what the training draws next.
    with torch.random.fork_rng(devices=[]):
        copy = plain_class(model)(model.config)
    copy.load_state_dict(state)
    for name, parameter in model.named_parameters():
        copy.get_parameter(name).requires_grad_(parameter.requires_grad)
    return copy.train(model.training)


def whole_optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """
    `optimizer.state_dict()` as one process would have it, on the CPU. Every process has to call this.

    That makes it readable by any number of processes, with FSDP or without.
    """
    state = optimizer.state_dict()
    tensors = {
        index: {name: whole(value).cpu() if torch.is_tensor(value) else value for name, value in own.items()}
        for index, own in sorted(state["state"].items())
    }
    return {**state, "state": tensors}


def load_whole_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """
    Reads back what [`whole_optimizer_state`] or one process wrote.

    Raises:
        ValueError: The optimizer keeps a tensor that is not of the shape of its parameter, and cannot be split like it.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    tensors = {
        index: {name: _part(parameters[index], name, value) for name, value in own.items()}
        for index, own in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": tensors})


def _part(parameter: torch.Tensor, name: str, value: Any) -> Any:
    if not isinstance(parameter, DTensor) or not torch.is_tensor(value) or value.dim() == 0:
        return value
    if value.shape != parameter.shape:
        raise ValueError(
            f"the optimizer keeps `{name}` of shape {tuple(value.shape)} for a parameter of shape "
            f"{tuple(parameter.shape)}, which cannot be split like it; choose another `optim` for FSDP"
        )
    return _like(parameter, value)
