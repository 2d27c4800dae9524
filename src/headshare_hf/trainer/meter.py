"""Loss parts that are summed on the device and read only when they are logged."""

import torch


class NonFiniteLossError(FloatingPointError):
    """A loss part became NaN or infinite; the message names the part and the step."""


class LossMeter:
    """
    Running means of the loss parts, and the first step at which each was not finite.

    Nothing here waits for the device before the sums are read.
    """

    _NEVER = torch.iinfo(torch.int64).max

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._first_bad: dict[str, torch.Tensor] = {}
        self._count = 0

    @property
    def names(self) -> list[str]:
        """The parts seen so far."""
        return list(self._sums)

    def add(self, parts: dict[str, torch.Tensor], step: int) -> None:
        """
        Args:
            parts (`dict[str, torch.Tensor]`): Scalars by name.
            step (`int`): The optimizer step they belong to, counted from 1.
        """
        for name, value in parts.items():
            value = value.detach()
            if name not in self._sums:
                self._sums[name] = torch.zeros((), device=value.device)
                self._first_bad[name] = torch.full((), self._NEVER, device=value.device)
            self._sums[name] += value
            good = torch.isfinite(value)
            self._first_bad[name] = torch.where(good, self._first_bad[name], self._first_bad[name].clamp(max=step))
        self._count += 1

    def sums(self) -> torch.Tensor:
        """Tensor of shape `(len(names),)`: each part's sum since the last [`reset`]."""
        return torch.stack([self._sums[name] for name in self.names])

    def first_bad(self) -> torch.Tensor:
        """Integer tensor of shape `(len(names),)`: the first step that was not finite, or the largest integer."""
        return torch.stack([self._first_bad[name] for name in self.names])

    @property
    def count(self) -> int:
        """Calls of [`add`] since the last [`reset`]."""
        return self._count

    def reset(self) -> None:
        """Starts new means."""
        for total in self._sums.values():
            total.zero_()
        self._count = 0

    def check(self, first_bad: torch.Tensor, remedy: str) -> None:
        """
        Args:
            first_bad (`torch.Tensor`): What [`first_bad`] returned, reduced over all processes.
            remedy (`str`): Appended to the message.

        Raises:
            NonFiniteLossError: A part was not finite.
        """
        steps = first_bad.tolist()
        step = min(steps, default=self._NEVER)
        if step == self._NEVER:
            return
        # The total follows its parts, so a part is named where one is to blame.
        culprits = [name for name, at in zip(self.names, steps, strict=True) if at == step]
        culprits = [name for name in culprits if name != "loss"] or culprits
        raise NonFiniteLossError(f"loss part {', '.join(culprits)} was not finite at step {step}. {remedy}")
