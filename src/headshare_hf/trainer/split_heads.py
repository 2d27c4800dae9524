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
    keeps its state for the same rows. Where the whole classifier is needed, `whole` lends it to evaluate, `collected` to
    save and `replaced` to load.

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
        self._cut()

    def join(self, optimizer: Any) -> None:
        """The classifier is whole again."""
        self._gather(optimizer)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """
        Lends the whole classifier to every process, on its device, to evaluate. Every process has to enter; outside of a
        training there is nothing to do.
        """
        if not self._split:
            yield
            return
        # Not in `finally`: after an error in one process the others would be waited for.
        self._gather(None)
        yield
        self._cut()

    @contextlib.contextmanager
    def collected(self, optimizer: Any) -> Iterator[None]:
        """
        Lends the whole classifier, and the whole of what the optimizer keeps for it, to the main process, on the CPU, to
        save. Every process has to enter, and keeps its own rows where they are.
        """
        if not self._split:
            yield
            return
        own = [(parameter, parameter.data, _states(optimizer, parameter)) for parameter in self._parameters]
        kept = [(state, name, state[name]) for _, _, states in own for state, name in states]
        try:
            for state, name, rows in kept:
                state[name] = self._collect(rows)
            for parameter, rows, _ in own:
                parameter.data = self._collect(rows)
            yield
        finally:
            for parameter, rows, _ in own:
                parameter.data = rows
            for state, name, rows in kept:
                state[name] = rows

    @contextlib.contextmanager
    def replaced(self) -> Iterator[None]:
        """
        Inside of it the classifier has room for all classes, on the CPU, and no values yet. What is loaded there is split at
        the end.
        """
        if not self._split:
            yield
            return
        rows = self._make_room()
        yield
        for parameter, own in zip(self._parameters, rows, strict=True):
            own.copy_(parameter.data[self.start : self.stop])
            parameter.data = own

    @contextlib.contextmanager
    def replaced_states(self, optimizer: Any) -> Iterator[None]:
        """As `replaced`, for what the optimizer keeps. The classifier itself is as before at the end."""
        if not self._split:
            yield
            return
        rows = self._make_room()
        yield
        for parameter, own in zip(self._parameters, rows, strict=True):
            for state, name in _states(optimizer, parameter):
                state[name] = state[name][self.start : self.stop].to(own.device, copy=True)
            _move_counts(optimizer, parameter, own.device)
            parameter.data = own

    def _make_room(self) -> list[torch.Tensor]:
        rows = [parameter.data for parameter in self._parameters]
        for parameter, own in zip(self._parameters, rows, strict=True):
            parameter.data = own.new_empty((self.num_labels, *own.shape[1:]), device="cpu")
        return rows

    def _cut(self) -> None:
        for parameter in self._parameters:
            parameter.data = parameter.data[self.start : self.stop].clone()
        self._split = True

    def _gather(self, optimizer: Any) -> None:
        for parameter in self._parameters:
            for state, name in _states(optimizer, parameter):
                state[name] = gather_classes(state[name], self.num_labels)
            parameter.data = gather_classes(parameter.data, self.num_labels)
        self._split = False

    def _collect(self, rows: torch.Tensor) -> torch.Tensor:
        found = collect_classes(rows, self.num_labels)
        return rows if found is None else found


def class_range(num_labels: int, rank: int | None = None) -> tuple[int, int]:
    """
    The classes of a process, of this one where no `rank` is given, from the first to before the last. The last processes
    may have fewer, or none.
    """
    size = -(-num_labels // distributed.get_world_size())
    start = min((distributed.get_rank() if rank is None else rank) * size, num_labels)
    return start, min(start + size, num_labels)


def gather_classes(rows: torch.Tensor, num_labels: int) -> torch.Tensor:
    """
    Args:
        rows (`torch.Tensor` of shape `(own_classes, ...)`): Of the classes of this process.
        num_labels (`int`): Number of all classes.

    Returns:
        `torch.Tensor` of shape `(num_labels, ...)`: The same in every process.
    """
    result = rows.new_empty((num_labels, *rows.shape[1:]))
    # One after the other, straight into their places: together they would need room for equally many of each.
    for rank in range(distributed.get_world_size()):
        start, stop = class_range(num_labels, rank)
        if rank == distributed.get_rank():
            result[start:stop] = rows
        if start < stop:
            distributed.broadcast(result[start:stop], src=rank)
    return result


def collect_classes(rows: torch.Tensor, num_labels: int) -> torch.Tensor | None:
    """
    As [`gather_classes`] for the main process alone, on the CPU; `None` in all others. The device of the main process
    never holds more than the classes of one other.
    """
    if distributed.get_rank() != 0:
        if len(rows):
            distributed.send(rows.contiguous(), dst=0)
        return None
    result = torch.empty((num_labels, *rows.shape[1:]), dtype=rows.dtype)
    result[: len(rows)] = rows
    for rank in range(1, distributed.get_world_size()):
        start, stop = class_range(num_labels, rank)
        if start < stop:
            received = rows.new_empty((stop - start, *rows.shape[1:]))
            distributed.recv(received, src=rank)
            result[start:stop] = received
    return result


def leave_to_processes(head: nn.Module, module: nn.Module) -> None:
    """Keeps DDP, which is about to wrap `module`, from making the parameters of `head` the same in all processes."""
    own = {id(parameter) for parameter in head.parameters()}
    names = [name for name, parameter in module.named_parameters() if id(parameter) in own]
    module._ddp_params_and_buffers_to_ignore = [*getattr(module, "_ddp_params_and_buffers_to_ignore", []), *names]  # type: ignore[assignment]


def part_of_head(head: nn.Module, start: int, stop: int, device: torch.device) -> nn.Module:
    """
    A frozen classifier of the classes from `start` to before `stop` of `head`, which is left as it is. On a CPU both share
    their memory; elsewhere the whole one may then leave the device.
    """
    part: Any = copy.copy(head)
    part._parameters = {
        name: nn.Parameter(parameter.detach()[start:stop].to(device, copy=device.type != "cpu"), requires_grad=False)
        for name, parameter in head.named_parameters(recurse=False)
    }
    return part


def _move_counts(optimizer: Any, parameter: nn.Parameter, device: torch.device) -> None:
    """A fused step reads its count of steps where the parameter is; another one keeps it on the CPU."""
    inner = getattr(optimizer, "optimizer", optimizer)
    if inner is None or not inner.defaults.get("fused"):
        return
    state = inner.state.get(parameter, {})
    state.update({name: value.to(device) for name, value in state.items() if torch.is_tensor(value)})


def _states(optimizer: Any, parameter: nn.Parameter) -> list[tuple[dict[str, Any], str]]:
    """Where the optimizer keeps one number for every number of `parameter`."""
    if optimizer is None:
        return []
    # accelerate puts its own optimizer around the one that has the state.
    state = getattr(optimizer, "optimizer", optimizer).state.get(parameter, {})
    return [
        (state, name) for name, value in state.items() if torch.is_tensor(value) and value.shape == parameter.shape
    ]
