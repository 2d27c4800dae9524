"""What transformers asks of every module at every step, without a walk through the tree of modules."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


class FlatWalks:
    """
    `train` and `zero_grad` of a module that keeps its modules and parameters, over lists of them.

    An object with methods in place of two functions, so that a copy of the module has those of the copy.

    Args:
        module (`nn.Module`): As the training loop calls it, with its wrappers.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._modules = list(module.modules())
        self._parameters = list(module.parameters())

    def train(self, mode: bool = True) -> nn.Module:
        """See `nn.Module.train`, of which nothing is left to do where everything is in training mode already."""
        if not (mode and all(module.training for module in self._modules)):
            type(self._module).train(self._module, mode)
        return self._module

    def zero_grad(self, set_to_none: bool = True) -> None:
        """See `nn.Module.zero_grad`."""
        if not set_to_none:
            type(self._module).zero_grad(self._module, set_to_none)
            return
        for parameter in self._parameters:
            parameter.grad = None


@contextmanager
def flat_walks(module: nn.Module) -> Iterator[None]:
    """
    Inside of it `module.train()` and `module.zero_grad()` are those of [`FlatWalks`].

    Args:
        module (`nn.Module`): Not of FSDP, whose parameters are other objects while they are gathered.
    """
    walks = FlatWalks(module)
    # Not by assignment: a compiled module would hand it on to the one inside.
    module.__dict__.update(train=walks.train, zero_grad=walks.zero_grad)
    try:
        yield
    finally:
        for name in ("train", "zero_grad"):
            module.__dict__.pop(name, None)
