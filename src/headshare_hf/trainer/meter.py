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
        self._names: tuple[str, ...] = ()
        # One number a part: a handful of small operations a step in place of that many for each part.
        self._sums = torch.zeros(0)
        self._first_bad = torch.zeros(0, dtype=torch.int64)
        self._count = 0

    @property
    def names(self) -> list[str]:
        """The parts, in the order of the first call of [`add`]."""
        return list(self._names)

    def add(self, parts: dict[str, torch.Tensor], step: int) -> None:
        """
        Args:
            parts (`dict[str, torch.Tensor]`): Scalars by name; the same names at every call.
            step (`int`): The optimizer step they belong to, counted from 1.

        Raises:
            ValueError: The names are others than at the first call.
        """
        values = torch.stack([value.detach().float() for value in parts.values()])
        if not self._names:
            self._names = tuple(parts)
            self._sums = torch.zeros_like(values)
            self._first_bad = torch.full_like(values, self._NEVER, dtype=torch.int64)
        if tuple(parts) != self._names:
            raise ValueError(
                f"the loss parts were {self.names} and are {list(parts)}; they must stay the same in a run"
            )
        self._sums += values
        self._first_bad.clamp_(max=torch.where(values.isfinite(), self._NEVER, step))
        self._count += 1

    def sums(self) -> torch.Tensor:
        """Tensor of shape `(len(names),)`: each part's sum since the last [`reset`]."""
        return self._sums.clone()

    def first_bad(self) -> torch.Tensor:
        """Integer tensor of shape `(len(names),)`: the first step that was not finite, or the largest integer."""
        return self._first_bad.clone()

    @property
    def count(self) -> int:
        """Calls of [`add`] since the last [`reset`]."""
        return self._count

    def reset(self) -> None:
        """Starts new means."""
        self._sums.zero_()
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
