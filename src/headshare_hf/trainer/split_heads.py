"""Class matrices that are split over the processes: every process holds and trains some of the classes."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed, nn

from .sharding import share


class SplitHead:
    """
    The classifier of the student while it trains, of which this process holds consecutive classes only.

    Gradients of the rows are those of the whole batch already, so that DDP has nothing to average there; the optimizer
    keeps its state for the same rows. Where the whole classifier is needed, to evaluate and to save, [`whole`] lends it.

    Args:
        head (`nn.Module`): The student's classifier, whole and the same in every process.
    """

    def __init__(self, head: nn.Module) -> None:
        self.head = head
        self._parameters = list(head.parameters())
        self.num_labels = len(self._parameters[0])
        self.start, self.stop = class_range(self.num_labels)
        self._split = False

    def split(self) -> None:
        """From here on this process holds its own rows only, those that the first process had."""
        share(self._parameters)
        self._cut(None)

    def join(self, optimizer: Any) -> None:
        """The classifier is whole again."""
        self._gather(optimizer)

    @contextlib.contextmanager
    def whole(self, optimizer: Any = None) -> Iterator[None]:
        """
        Lends the whole classifier, and the whole of what the optimizer keeps for it. What is changed inside is split
        at the end. Every process has to enter; outside of a training there is nothing to do.
        """
        if not self._split:
            yield
            return
        # Not in `finally`: after an error in one process the others would be waited for.
        self._gather(optimizer)
        yield
        self._cut(optimizer)

    def _cut(self, optimizer: Any) -> None:
        for parameter in self._parameters:
            for state, name in _states(optimizer, parameter):
                state[name] = state[name][self.start : self.stop].clone()
            parameter.data = parameter.data[self.start : self.stop].clone()
        self._split = True

    def _gather(self, optimizer: Any) -> None:
        for parameter in self._parameters:
            for state, name in _states(optimizer, parameter):
                state[name] = gather_classes(state[name], self.num_labels)
            parameter.data = gather_classes(parameter.data, self.num_labels)
        self._split = False


def class_range(num_labels: int) -> tuple[int, int]:
    """The classes of this process, from the first to before the last; the last processes may have fewer, or none."""
    size = -(-num_labels // distributed.get_world_size())
    start = min(distributed.get_rank() * size, num_labels)
    return start, min(start + size, num_labels)


def gather_classes(rows: torch.Tensor, num_labels: int) -> torch.Tensor:
    """
    Args:
        rows (`torch.Tensor` of shape `(own_classes, ...)`): Of the classes of this process.
        num_labels (`int`): Number of all classes.

    Returns:
        `torch.Tensor` of shape `(num_labels, ...)`: The same in every process.
    """
    processes = distributed.get_world_size()
    size = -(-num_labels // processes)
    padded = rows.new_zeros(size, *rows.shape[1:])
    padded[: len(rows)] = rows
    result = rows.new_empty(processes * size, *rows.shape[1:])
    distributed.all_gather_into_tensor(result, padded)
    return result[:num_labels].clone() if processes * size != num_labels else result


def leave_to_processes(head: nn.Module, module: nn.Module) -> None:
    """Keeps DDP, which is about to wrap `module`, from making the parameters of `head` the same in all processes."""
    own = {id(parameter) for parameter in head.parameters()}
    names = [name for name, parameter in module.named_parameters() if id(parameter) in own]
    module._ddp_params_and_buffers_to_ignore = [*getattr(module, "_ddp_params_and_buffers_to_ignore", []), *names]  # type: ignore[assignment]


def part_of_head(head: nn.Module, start: int, stop: int, device: torch.device) -> nn.Module:
    """A frozen classifier of the classes from `start` to before `stop` of `head`, which is left as it is."""
    part: Any = copy.copy(head)
    part._parameters = {
        name: nn.Parameter(parameter.detach()[start:stop].to(device, copy=True), requires_grad=False)
        for name, parameter in head.named_parameters(recurse=False)
    }
    return part


def _states(optimizer: Any, parameter: nn.Parameter) -> list[tuple[dict[str, Any], str]]:
    """Where the optimizer keeps one number for every number of `parameter`."""
    if optimizer is None:
        return []
    # accelerate puts its own optimizer around the one that has the state.
    state = getattr(optimizer, "optimizer", optimizer).state.get(parameter, {})
    return [
        (state, name) for name, value in state.items() if torch.is_tensor(value) and value.shape == parameter.shape
    ]
