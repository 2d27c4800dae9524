"""Batch normalization of a network that no longer trains, multiplied into the layer before it."""

import contextlib
import copy
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


logger = logging.getLogger(__name__)
# Exactly these: a subclass may do more in its forward pass.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS = (*_CONVOLUTIONS, nn.Linear)
_NORMALIZATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)
_NOTHING = "has no batch normalization that can be folded into the layer before it"


class FoldablePair(NamedTuple):
    """
    Attributes:
        layer (`str`): Name of a convolution or linear layer.
        normalization (`str`): Name of the batch normalization that is the only one to read its output.
    """

    layer: str
    normalization: str


class _Readers(TorchDispatchMode):
    """Counts for every tensor how many operations read it."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[int] = Counter()
        # A tensor that was freed would leave its number to another one.
        self._kept: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs or {})):
            if isinstance(value, torch.Tensor):
                self.reads[id(value)] += 1
                self._kept.append(value)
        return func(*args, **(kwargs or {}))


class _Passes(NamedTuple):
    """What went through the layers and normalizations in one forward pass, by their names."""

    outputs: dict[str, list[torch.Tensor]]
    inputs: dict[str, list[torch.Tensor]]


def folded_network(
    model: nn.Module,
    run: Callable[[nn.Module, torch.Tensor], Any],
    images: torch.Tensor,
    shared: nn.Module | None = None,
    required: bool = False,
) -> nn.Module:
    """
    A copy of a frozen network with its batch normalizations folded away; or the network itself where that is not proven
    to compute the same.

    Args:
        model (`nn.Module`): In evaluation mode; it is not changed.
        run (`Callable`): Gives the tensors that are wanted of a network for some images.
        images (`torch.Tensor`): A batch on which both networks have to agree.
        shared (`nn.Module`, *optional*): A part that is the same object in the copy, with its hooks.
        required (`bool`, *optional*, defaults to `False`): Whether anything but a folded network is an error.

    Raises:
        ValueError: `required`, and there is nothing to fold or the outputs differ.
    """
    if not any(type(module) in _NORMALIZATIONS for module in model.modules()):
        return _unfolded(model, _NOTHING, required)
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        return _unfolded(model, "has weights that are not float32, which folding would round", required)
    # Two images show who reads what as well as all of them.
    pairs = find_foldable(model, lambda: run(model, images[:2]), shared)
    if not pairs:
        return _unfolded(model, _NOTHING, required)
    folded = fold(model, pairs, shared, _layout(images))
    with torch.no_grad():
        difference = _difference(run(folded, images), run(model, images))
    if not difference <= _tolerance(images.device):
        return _unfolded(
            model, f"computes something else when folded (relative difference {difference:.1e})", required
        )
    logger.info("folded %d batch normalizations of %s", len(pairs), type(model).__name__)
    return folded


def _unfolded(model: nn.Module, why: str, required: bool) -> nn.Module:
    if required:
        raise ValueError(f"`fold_teacher` is True, but {type(model).__name__} {why}; leave `fold_teacher` out")
    logger.info("%s %s", type(model).__name__, why)
    return model


def _tolerance(device: torch.device) -> float:
    # Convolutions of NVIDIA GPUs round their input to ten bits by default.
    return 5e-3 if device.type == "cuda" else 1e-4


def _difference(found: Any, expected: Any) -> float:
    """The largest, relative to the largest value of the tensor."""
    pairs = zip(tree_leaves(found), tree_leaves(expected), strict=True)
    tensors = [(ours, theirs) for ours, theirs in pairs if isinstance(theirs, torch.Tensor)]
    return max(float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)) for ours, theirs in tensors)


def find_foldable(model: nn.Module, run: Callable[[], Any], excluded: nn.Module | None = None) -> list[FoldablePair]:
    """
    The batch normalizations that read the output of a layer which nothing else reads, found by watching a forward pass.

    Args:
        model (`nn.Module`): A network in evaluation mode.
        run (`Callable`): Runs it on some images.
        excluded (`nn.Module`, *optional*): A layer that has to stay as it is.
    """
    passes = _Passes(defaultdict(list), defaultdict(list))
    readers = _Readers()
    with _watched(model, passes, excluded), torch.no_grad(), readers:
        output = run()
    # What is returned has a reader that is not seen here.
    readers.reads.update(id(value) for value in tree_leaves(output) if isinstance(value, torch.Tensor))
    makers = {id(tensors[0]): name for name, tensors in passes.outputs.items() if len(tensors) == 1}
    return [
        FoldablePair(makers[id(tensors[0])], name)
        for name, tensors in passes.inputs.items()
        if len(tensors) == 1 and id(tensors[0]) in makers and readers.reads[id(tensors[0])] == 1
    ]


@contextlib.contextmanager
def _watched(model: nn.Module, passes: _Passes, excluded: nn.Module | None) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():
        if module is excluded or not _is_plain(module):
            continue
        if type(module) in _LAYERS:
            note = partial(_note_output, passes.outputs[name])
            handles.append(module.register_forward_hook(note))
        elif type(module) in _NORMALIZATIONS and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(partial(_note_input, passes.inputs[name])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_plain(module: nn.Module) -> bool:
    """Whether nobody has added anything to what the class of the module does."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _note_output(noted: list[torch.Tensor], module: nn.Module, args: tuple, output: torch.Tensor) -> None:
    noted.append(output)


def _note_input(noted: list[torch.Tensor], module: nn.Module, args: tuple) -> None:
    noted.extend(args)


def _layout(images: torch.Tensor) -> torch.memory_format:
    """That in which convolutions of `images` read their weights; others would be copied into it at every call."""
    last = images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last and not images.is_contiguous() else torch.preserve_format


def fold(
    model: nn.Module,
    pairs: list[FoldablePair],
    shared: nn.Module | None = None,
    layout: torch.memory_format = torch.preserve_format,
) -> nn.Module:
    """
    A copy of `model` in which every pair is one layer. It shares all its other tensors with `model`.

    Args:
        model (`nn.Module`): A frozen network in evaluation mode; it is not changed.
        pairs (`list[FoldablePair]`): What [`find_foldable`] found.
        shared (`nn.Module`, *optional*): A part that is the same object in the copy, with its hooks.
        layout (`torch.memory_format`, *optional*): Of the weights that are new. Default: as they were.
    """
    same: dict[int, Any] = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    if shared is not None:
        same[id(shared)] = shared
    folded = copy.deepcopy(model, same)
    for layer, normalization in pairs:
        fused = _fused(folded.get_submodule(layer), folded.get_submodule(normalization))
        _replace(folded, layer, fused.requires_grad_(False).to(memory_format=layout))
        _replace(folded, normalization, _rest(folded.get_submodule(normalization)))
    return folded


def _rest(normalization: Any) -> nn.Module:
    """What a normalization does besides."""
    if isinstance(normalization, BatchNormAct2d):
        return nn.Sequential(normalization.drop, normalization.act)
    return nn.Identity()


def _fused(layer: Any, normalization: Any) -> nn.Module:
    fuse: Any = fuse_conv_bn_eval if isinstance(layer, _CONVOLUTIONS) else fuse_linear_bn_eval
    return fuse(layer, normalization)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)
