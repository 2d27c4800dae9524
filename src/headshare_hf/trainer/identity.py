"""What tells one run from another."""

from dataclasses import asdict
from typing import Any, cast

from torch import nn

from ..models import find_classifier
from . import run_folder
from .checks import labels_of
from .config import DistillationConfig


_IDENTIFYING = (
    "temperature",
    "kd_scale",
    "embedding_distance",
    "num_negatives",
    "negatives",
    "contrastive_size",
    "student_head",
    "class_sample_rate",
    "projector",
    "seed",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "weight_decay",
    "optim",
    "optim_args",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "lr_decay_epochs",
    "lr_decay_rate",
    "warmup_steps",
    "max_grad_norm",
    "decay_norm_and_bias",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "bf16",
    "fp16",
    "teacher_precision",
)
# What a configuration says besides the network: names, places and versions.
_UNIMPORTANT = (
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "id2label",
    "label2id",
    "torch_dtype",
    "transformers_version",
    "verification_thresholds",
)
# Fields that older records do not have: named where they are set.
_LATER = ("map_projector",)
_OF_COMPANION = (
    "companion_options",
    "companion_warmup_epochs",
    "pretraining_epochs",
    "pretraining_learning_rate",
)


def run_identity(
    model: nn.Module, teacher: nn.Module | None, shared: nn.Module | None, args: DistillationConfig, datasets: tuple
) -> dict[str, Any]:
    """
    What makes a run this run: a folder is only resumed or reused by the same.

    Args:
        model (`nn.Module`): The student. Its weights are not part of it, because a resumed run replaces them.
        teacher (`nn.Module`, *optional*): With all its weights.
        shared (`nn.Module`, *optional*): The model whose classifier is shared.
        args ([`DistillationConfig`]): Method, optimizer, schedule, precision and seed.
        datasets (`tuple`): Training and evaluation set; their labels, and how their images are prepared, are taken where
            they can be read.
    """
    described = {
        "student": {**run_folder.describe_model(model), "start": cast(Any, model).config.name_or_path or None},
        "configuration": describe_configuration(model),
        "teacher": None if teacher is None else {**run_folder.describe_model(teacher), "weights": _digest(teacher)},
        "shared_head": None if shared is None else _digest(find_classifier(shared)),
        "method": args.method or "plain",
        **_describe_weights(args),
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "images": [len(data) if hasattr(data, "__len__") else None for data in datasets],
        "labels": [label_digest(data) for data in datasets],
        "preparation": [getattr(data, "preparation", None) for data in datasets],
        # Rows of float32 change no loss by more than rounding, so that such a run may go on with a cache or without.
        "teacher_cache": None if args.teacher_cache_dtype == "float32" else args.teacher_cache_dtype,
    }
    # Records from before it could be set have none.
    smoothing = {"label_smoothing_factor": str(args.label_smoothing_factor)} if args.label_smoothing_factor else {}
    return {**described, **smoothing, **{name: str(getattr(args, name)) for name in _IDENTIFYING}}


def describe_configuration(model: nn.Module) -> dict[str, str]:
    """What the configuration of a model says about its network, as text."""
    content = cast(Any, model).config.to_dict()
    unset = {name for name in _LATER if content.get(name) is None}
    return {name: str(value) for name, value in content.items() if name not in {*_UNIMPORTANT, *unset}}


def _describe_weights(args: DistillationConfig) -> dict[str, Any]:
    """A companion stands by itself, so that records from before there were any still fit."""
    weights = asdict(args.loss_weights)
    own = {"weight": weights.pop("companion"), **{name: getattr(args, name) for name in _OF_COMPANION}}
    companion = None if args.companion_name is None else {"name": args.companion_name, **own}
    return {"weights": weights, "companion": companion}


def _digest(module: nn.Module) -> str:
    return run_folder.weights_digest(module.state_dict())


def label_digest(dataset: Any) -> str | None:
    labels = None if dataset is None else labels_of(dataset)
    return None if labels is None else run_folder.weights_digest({"labels": labels})
