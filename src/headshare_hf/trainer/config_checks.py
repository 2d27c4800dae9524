"""What a configuration alone shows to be wrong, before there is a model."""

import inspect
from collections.abc import Iterable
from typing import Any

from huggingface_hub.utils import validate_repo_id
from transformers.trainer_utils import HubStrategy

from ..losses import COMPANIONS, DISTANCES, NEGATIVES, PretrainedCompanionLoss
from .methods import get_method, unknown_name
from .optimizer_options import check_optimizer


STUDENT_HEADS = ("own", "teacher_init", "teacher_frozen")
PROJECTORS = ("linear", "linear_bn_relu")
TEACHER_PRECISIONS = ("auto", "float32", "bfloat16", "float16")
CACHE_DTYPES = ("float32", "float16")
# Fields that say something about a companion, and those of its own stage of training; all unset by default.
_OF_COMPANION = ("companion_weight", "companion_options", "companion_warmup_epochs")
_OF_PRETRAINING = ("pretraining_epochs", "pretraining_learning_rate")
# Parts of the loss with options of their own, and the weights of each.
_SOFTENED = ("softened KL", ("kd", "teacher_head"))
_DISTANCE = ("embedding distance", ("embedding",))
# Options that one part alone reads, what they are where nobody sets them, and that part.
_READ_BY = {
    "temperature": (None, _SOFTENED),
    "kd_scale": (None, _SOFTENED),
    "embedding_distance": ("cosine", _DISTANCE),
}
# What a network shows on request.
MAPS = frozenset({"hidden_states", "pre_activations", "final_map"})


def check_names(args: Any) -> None:
    """
    Args:
        args ([`DistillationConfig`]): Whose method and companion may be looked up afterwards.

    Raises:
        ValueError: There is no such method or companion; the nearest names and all names are listed.
    """
    get_method(args.method or "plain")
    if args.companion is not None and args.companion not in COMPANIONS:
        raise ValueError(unknown_name("companion", args.companion, COMPANIONS))


def check_config(args: Any) -> None:
    """
    Args:
        args ([`DistillationConfig`]): With names that are known.

    Raises:
        ValueError: A field is out of its range, or would have no effect; the message names it.
    """
    for check in (
        _check_choices,
        _check_ranges,
        _check_unread,
        _check_contrastive,
        _check_companion,
        _check_head_options,
        _check_cache,
        check_optimizer,
        _check_hub,
    ):
        check(args)


def _check_companion(args: Any) -> None:
    if args.companion_name is None:
        _refuse_set(args, (*_OF_COMPANION, *_OF_PRETRAINING), "a companion loss; leave it out or set `companion`")
        return
    pretrained = issubclass(args.companion_loss, PretrainedCompanionLoss)
    if not pretrained:
        _refuse_set(
            args, _OF_PRETRAINING, f"a stage before the training, which {args.companion_name} has not; leave it out"
        )
    if args.loss_weights.companion == 0 and not pretrained:
        raise ValueError(
            f"`companion_weight` is 0, so that {args.companion_name} would have no effect; choose another method"
        )
    if args.loss_weights.companion == 0 and args.companion_warmup_epochs:
        raise ValueError("`companion_warmup_epochs` has no effect on a weight of 0; leave it out")
    for name in _OF_PRETRAINING:
        if getattr(args, name) is not None and not getattr(args, name) > 0:
            raise ValueError(f"`{name}` is {getattr(args, name)}; it must be positive")
    if not 0 <= args.companion_warmup_epochs < float("inf"):
        raise ValueError(f"`companion_warmup_epochs` is {args.companion_warmup_epochs}; it must not be negative")
    _check_companion_options(args)


def _check_companion_options(args: Any) -> None:
    allowed = companion_options(args.companion_name)
    for name in args.companion_options or {}:
        if name not in allowed:
            raise ValueError(unknown_name(f"option of {args.companion_name}", name, allowed))


def unread_options(parts: Any) -> dict[str, Any]:
    """
    The options that no part of a loss reads, with what they are where nobody sets them.

    Args:
        parts ([`LossWeights`] or [`Method`]): Has the weight of every part by its name.
    """
    return {
        name: unset
        for name, (unset, (_, weights)) in _READ_BY.items()
        if not any(getattr(parts, weight) for weight in weights)
    }


def _check_unread(args: Any) -> None:
    for name, unset in unread_options(args.loss_weights).items():
        value = getattr(args, name)
        if value == unset:
            continue
        if args.companion_name is not None and name in companion_options(args.companion_name):
            raise ValueError(
                f"`{name}` is that of the KL parts, of which there is none here, and {args.companion_name} has its own; set "
                f"companion_options={{'{name}': {value:g}}} instead"
            )
        _, (part, _) = _READ_BY[name]
        raise ValueError(
            f"`{name}` has no effect: method {args.method or 'plain'!r} with these weights has no {part}, which alone reads "
            "it; leave it out"
        )


def companion_options(name: str) -> list[str]:
    """What `companion_options` may have for the companion called `name`."""
    parameters = inspect.signature(COMPANIONS[name].loss.__init__).parameters
    return [parameter for parameter in parameters if parameter not in ("self", "student", "teacher")]


def _refuse_set(args: Any, names: Iterable[str], without: str) -> None:
    for name in names:
        if getattr(args, name):
            raise ValueError(f"`{name}` has no effect without {without}")


def _check_choices(args: Any) -> None:
    for name, value, allowed in (
        ("student_head", args.student_head, STUDENT_HEADS),
        ("embedding_distance", args.embedding_distance, DISTANCES),
        ("negatives", args.negatives, (None, *NEGATIVES)),
        ("projector", args.projector, (None, *PROJECTORS)),
        ("teacher_precision", args.teacher_precision, TEACHER_PRECISIONS),
        ("teacher_cache_dtype", args.teacher_cache_dtype, CACHE_DTYPES),
    ):
        if value not in allowed:
            raise ValueError(f"`{name}` is {value!r}; allowed: {', '.join(map(str, allowed))}")


def _check_ranges(args: Any) -> None:
    for name in ("temperature", "kd_scale"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ValueError(f"`{name}` is {value}; it must be positive")
    if args.temperature is not None and args.kd_scale is not None:
        raise ValueError("`temperature` and `kd_scale` say the same of cosine heads; give one of them")
    if not 0 <= args.eval_teacher_head_weight <= 1:
        raise ValueError(f"`eval_teacher_head_weight` is {args.eval_teacher_head_weight}; it must be in [0, 1]")
    if not 0 <= args.label_smoothing_factor < 1:
        raise ValueError(f"`label_smoothing_factor` is {args.label_smoothing_factor}; it must be in [0, 1)")
    if args.label_smoothing_factor and not (args.loss_weights.ce or args.loss_weights.teacher_head_ce):
        raise ValueError("`label_smoothing_factor` has no effect without a cross-entropy; leave it out")
    if args.lr_decay_epochs is not None and args.warmup_steps:
        raise ValueError("`lr_decay_epochs` has no warm-up; leave out `warmup_steps`")
    if args.lr_decay_epochs is not None and args.max_steps > 0:
        raise ValueError("`lr_decay_epochs` counts epochs, so it cannot be combined with `max_steps`")
    if not 0 < args.lr_decay_rate <= 1:
        raise ValueError(f"`lr_decay_rate` is {args.lr_decay_rate}; it must be in (0, 1]")


def _check_contrastive(args: Any) -> None:
    for name in ("num_negatives", "negatives", "contrastive_size"):
        value = getattr(args, name)
        if value is not None and not args.loss_weights.contrastive:
            raise ValueError(f"`{name}` has no effect without a contrastive loss; leave it out or choose method 'crd'")
        if isinstance(value, int) and value < 1:
            raise ValueError(f"`{name}` is {value}; it must be at least 1")


def _check_cache(args: Any) -> None:
    weights = args.loss_weights
    for name, unset in (("teacher_cache_dtype", "float32"), ("teacher_cache_moments", False)):
        if args.teacher_cache is None and getattr(args, name) != unset:
            raise ValueError(f"`{name}` has no effect without `teacher_cache`, the folder; leave it out")
    if args.teacher_cache is not None and not weights.needs_teacher_forward:
        raise ValueError(
            f"`teacher_cache` has no effect: method {args.method or 'plain'!r} with these weights asks no teacher about "
            "images; leave it out"
        )
    if args.teacher_cache is not None and args.teacher_reads & MAPS:
        raise ValueError(
            f"`teacher_cache` keeps embeddings or logits, and {args.companion_name} compares feature maps; leave it out, or "
            "take a companion on embeddings or logits"
        )
    others = weights.kd or weights.companion or weights.needs_teacher_embedding
    if args.teacher_cache_moments and (others or not weights.teacher_head):
        raise ValueError(
            "`teacher_cache_moments` keeps nothing but what the KL through the teacher's head needs, and other parts ask "
            "the teacher about images too; leave it out"
        )
    if args.teacher_cache_moments and args.teacher_cache_dtype != "float32":
        raise ValueError(
            "`teacher_cache_moments` leave small differences of large numbers, so that rounding to float16 would show in "
            "the loss; leave out `teacher_cache_dtype`"
        )


def _check_hub(args: Any) -> None:
    if HubStrategy(args.hub_strategy) is not HubStrategy.END or args.hub_always_push:
        name = "hub_always_push" if args.hub_always_push else "hub_strategy"
        raise ValueError(
            f"`{name}` is {getattr(args, name)!r}, but a run is published at its end, whole and with its card; leave it out"
        )
    if args.hub_model_id is not None:
        validate_repo_id(args.hub_model_id)


def _check_head_options(args: Any) -> None:
    if args.alpha_th is not None and args.has_teacher_head_weights:
        raise ValueError(
            "`alpha_th` sets the weights of both teacher-head terms; leave out `teacher_head_weight` and "
            "`teacher_head_ce_weight`"
        )
    weights = args.loss_weights
    trained = weights.trains_own_head or "logits" in args.student_reads or args.predicts_with_centers
    if not trained and args.student_head != "teacher_frozen":
        raise ValueError(
            "no loss part reaches the student's own head, which would stay random; set "
            "`student_head='teacher_frozen'`, so that the student is published with the teacher's classifier"
        )
