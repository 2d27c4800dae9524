"""
Finding the classifier of a model, checking that another model can use it, and sharing it.

The mechanism behind TH-KD and SH-KD (arXiv 2201.06945, section 3): the classifier of one network reads the embedding
of another, so both must agree on the width of the embedding, on the classes and on their order.
"""

import contextlib
import copy
import weakref
from collections.abc import Iterator
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn

from .configuration_headshare import has_placeholder_labels
from .heads import CosineHead


Head = nn.Linear | CosineHead


def find_classifier(model: nn.Module) -> Head:
    """
    The one layer that turns the pooled embedding of `model` into logits.

    Works on this package's models, on transformers classifiers which keep it under `classifier` (ViT, DeiT, Swin,
    ConvNeXt, ResNet, ...) and on timm networks, wrapped by transformers or not.

    Args:
        model (`nn.Module`): An image classifier.

    Raises:
        ValueError: The model has no classifier, several, or one that is more than a linear layer.
    """
    root = _classifier_root(model)
    layers = [m for m in root.modules() if isinstance(m, (nn.Linear, CosineHead))] if root is not None else []
    others = [m for m in root.modules() if isinstance(m, nn.modules.conv._ConvNd)] if root is not None else []
    if len(layers) == 1 and not others:
        return layers[0]
    found = "no classifier" if root is None else f"{type(root).__name__} with {len(layers)} linear layers"
    raise ValueError(
        f"{type(model).__name__} has no classifier that can be shared: it must be one linear layer on a pooled "
        f"embedding, under the name `classifier` or what timm's `get_classifier()` returns; found {found}"
    )


def _classifier_root(model: nn.Module) -> nn.Module | None:
    timm_model: Any = getattr(model, "timm_model", model)
    if hasattr(timm_model, "get_classifier"):
        root = timm_model.get_classifier()
    else:
        root = getattr(model, "classifier", None)
    # A distilled timm network returns a pair of heads.
    return root if isinstance(root, nn.Module) else None


class EmbeddingTap:
    """
    Reads the embedding of a model whose output does not contain it: the input of its classifier.

    The hook is placed once, before the model is wrapped or compiled, because a hook that comes later is not seen by an
    already compiled graph.

    Args:
        model (`nn.Module`): An image classifier that [`find_classifier`] understands.
    """

    def __init__(self, model: nn.Module) -> None:
        self._name = type(model).__name__
        self._seen: list[torch.Tensor] = []
        head = find_classifier(model)
        # Not the head itself: the table of taps would then keep its own keys, and every class matrix, for ever.
        self._head: weakref.ref[nn.Module] | None = weakref.ref(head)
        self._handle = head.register_forward_pre_hook(self._record)

    def __getstate__(self) -> dict[str, Any]:
        # Copied or sent to another process with its model, it belongs to that copy, whose head it meets when that is called.
        return {**self.__dict__, "_head": None, "_seen": []}

    def _record(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._head = weakref.ref(module)
        self._seen.clear()
        self._seen.append(args[0])

    def take(self) -> torch.Tensor:
        """
        The embedding `(batch_size, embedding_size)` of the last forward pass, which is then forgotten.

        Raises:
            ValueError: The classifier was not called, or reads something that is not one vector per image.
        """
        if not self._seen:
            raise ValueError(f"{self._name} did not call its classifier in the last forward pass")
        embeddings = self._seen.pop()
        if embeddings.dim() != 2:
            raise ValueError(
                f"the classifier of {self._name} reads a tensor of shape {tuple(embeddings.shape)}, not one embedding "
                "per image; only a classifier on a pooled embedding can be shared"
            )
        return embeddings

    @contextlib.contextmanager
    def without_logits(self) -> Iterator[None]:
        """
        Inside of it the classifier returns what it reads, so that the model computes no matrix of images times classes.
        No weight is touched.
        """
        layer: Any = self._layer()
        if layer is None:
            raise ValueError(f"the classifier of {self._name} is gone; make another `EmbeddingTap` of the model")
        own = vars(layer).get("forward")
        layer.forward = _unchanged
        try:
            yield
        finally:
            # A method of the instance hides that of the class, unless somebody else had put one there already.
            del layer.forward
            if own is not None:
                layer.forward = own

    def remove(self) -> None:
        """Takes the hook off the model."""
        self._handle.remove()
        head = self._layer()
        if head is not None:
            _TAPS.pop(cast(Head, head), None)

    def _layer(self) -> nn.Module | None:
        return None if self._head is None else self._head()


def _unchanged(embeddings: torch.Tensor) -> torch.Tensor:
    return embeddings


_TAPS: WeakKeyDictionary[nn.Module, EmbeddingTap] = WeakKeyDictionary()


def embedding_tap(model: nn.Module) -> EmbeddingTap | None:
    """The one [`EmbeddingTap`] of a model, `None` for models whose output has `embeddings`."""
    if getattr(getattr(model, "config", None), "model_type", None) == "headshare":
        return None
    head = find_classifier(model)
    if head not in _TAPS:
        _TAPS[head] = EmbeddingTap(model)
    return _TAPS[head]


def check_label_maps(source: nn.Module, target: nn.Module) -> None:
    """
    Checks that class i is the same class in both models.

    The map `LABEL_0, LABEL_1, ...` that transformers fills in where nobody gave names says nothing, so it agrees with
    every map of the same length.

    Raises:
        ValueError: The numbers of classes differ, or a name does; the first difference is named.
    """
    for model in (source, target):
        if not hasattr(model, "config"):
            raise ValueError(
                f"a bare {type(model).__name__} does not say which classes it has; load it with "
                "`AutoModelForImageClassification` (timm networks too)"
            )
    ours, theirs = cast(Any, source).config, cast(Any, target).config
    if ours.num_labels != theirs.num_labels:
        raise ValueError(
            f"{_name(source)} has {ours.num_labels} classes and {_name(target)} has {theirs.num_labels}; a classifier "
            "can only be shared between models of the same classes"
        )
    if has_placeholder_labels(ours) or has_placeholder_labels(theirs):
        return
    for index in range(ours.num_labels):
        own, other = ours.id2label.get(index), theirs.id2label.get(index)
        if own != other:
            raise ValueError(
                f"class {index} is {own!r} in {_name(source)} but {other!r} in "
                f"{_name(target)}; reorder the labels of one of them, so that both `config.id2label` agree"
            )


def check_head_fits(head: Head, embedding_size: int, owner: str = "the other model") -> None:
    """
    Checks that `head` can read embeddings of width `embedding_size`.

    Raises:
        ValueError: The widths differ; the message says how a projector is asked for.
    """
    if head.in_features != embedding_size:
        raise ValueError(
            f"the shared classifier reads embeddings of width {head.in_features} but {owner} has width "
            f"{embedding_size}. Set `projector='linear'` (or 'linear_bn_relu') in DistillationConfig for a projector "
            f"that is used in training only, or build the model with `HeadShareConfig(embedding_size="
            f"{head.in_features}, projector='linear')` where it needs the projector at inference too"
        )


@torch.no_grad()
def share_head(source: nn.Module, target: nn.Module, freeze: bool = True) -> None:
    """
    Copies the classifier of `source` into `target`, bit for bit.

    `target` also takes over the class names of `source` where it has none of its own.

    Args:
        source (`nn.Module`): The model whose classifier is shared; it is not changed.
        target (`nn.Module`): The model that gets a copy of it.
        freeze (`bool`, *optional*, defaults to `True`): Whether the copy is excluded from training.

    Raises:
        ValueError: Any difference in the kind of head, embedding width, classes, label map, bias, or in a precision
            that would change the numbers.
    """
    ours, theirs = find_classifier(source), find_classifier(target)
    _check_same_kind(ours, theirs)
    check_head_fits(ours, theirs.in_features, _name(target))
    check_label_maps(source, target)
    copies = {name: _exact_copy(name, parameter, theirs) for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        parameter.copy_(copies[name])
        parameter.requires_grad_(not freeze)
    _adopt_label_map(source, target)


@torch.no_grad()
def with_head_length(model: nn.Module, length: float) -> Any:
    """
    A copy of a model whose class vectors have another mean length; its bias grows or shrinks with them, so that no decision
    changes.

    The classifier of a distilled student is often longer than that of an ordinary one (1.3 to 1.6 times in this project's
    comparisons), and so is the gradient that reaches a teacher which is trained around it. With a length as of an ordinary
    teacher's classifier, that teacher can be trained with an ordinary learning rate.

    Args:
        model (`nn.Module`): With one linear classifier; it is not changed.
        length (`float`): Mean Euclidean length of the rows of its weight.

    Raises:
        ValueError: `length` is not positive, or the head reads directions alone, so that no length of it has any effect.
    """
    head = find_classifier(model)
    if not 0 < length < float("inf"):
        raise ValueError(f"the length of class vectors is {length}; it must be positive")
    if isinstance(head, CosineHead):
        raise ValueError(f"the class centers of a {type(head).__name__} have no length that matters; leave it out")
    copied = copy.deepcopy(model)
    head = find_classifier(copied)
    factor = length / torch.linalg.vector_norm(head.weight.float(), dim=1).mean()
    for parameter in head.parameters():
        parameter.mul_(factor.to(parameter.dtype))
    return copied


def _check_same_kind(ours: Head, theirs: Head) -> None:
    if isinstance(ours, CosineHead) != isinstance(theirs, CosineHead):
        raise ValueError(
            f"a {type(ours).__name__} cannot be shared with a model whose classifier is a {type(theirs).__name__}; "
            "give both the same `head_type`"
        )
    if isinstance(ours, CosineHead) and ours.scale != cast(CosineHead, theirs).scale:
        raise ValueError(f"`head_scale` differs: {ours.scale} and {cast(CosineHead, theirs).scale}")
    names, other_names = dict(ours.named_parameters()).keys(), dict(theirs.named_parameters()).keys()
    if names != other_names:
        raise ValueError(f"one classifier has {sorted(names)} and the other {sorted(other_names)}")


def _exact_copy(name: str, parameter: nn.Parameter, theirs: Head) -> torch.Tensor:
    own = theirs.get_parameter(name)
    if own.shape != parameter.shape:
        raise ValueError(f"classifier {name} has shape {tuple(parameter.shape)} and {tuple(own.shape)}")
    exact = parameter.detach().to(own)
    if not torch.equal(exact.to(parameter), parameter):
        raise ValueError(
            f"classifier {name} is {parameter.dtype} and would be rounded to {own.dtype}; convert the target with "
            f"`.to({parameter.dtype})` first"
        )
    return exact


def _adopt_label_map(source: nn.Module, target: nn.Module) -> None:
    ours, theirs = cast(Any, source).config, cast(Any, target).config
    if has_placeholder_labels(theirs) and not has_placeholder_labels(ours):
        theirs.id2label, theirs.label2id = dict(ours.id2label), dict(ours.label2id)


def _name(model: nn.Module) -> str:
    config = getattr(model, "config", None)
    return getattr(config, "name_or_path", "") or getattr(config, "backbone", None) or type(model).__name__
