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
        "weights": asdict(args.loss_weights),
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "images": [len(data) if hasattr(data, "__len__") else None for data in datasets],
        "labels": [_label_digest(data) for data in datasets],
        "preparation": [getattr(data, "preparation", None) for data in datasets],
        # Rows of float32 change no loss by more than rounding, so that such a run may go on with a cache or without.
        "teacher_cache": None if args.teacher_cache_dtype == "float32" else args.teacher_cache_dtype,
    }
    return {**described, **{name: str(getattr(args, name)) for name in _IDENTIFYING}}


def describe_configuration(model: nn.Module) -> dict[str, str]:
    """What the configuration of a model says about its network, as text."""
    content = cast(Any, model).config.to_dict()
    return {name: str(value) for name, value in content.items() if name not in _UNIMPORTANT}


def _digest(module: nn.Module) -> str:
    return run_folder.weights_digest(module.state_dict())


def _label_digest(dataset: Any) -> str | None:
    labels = None if dataset is None else labels_of(dataset)
    return None if labels is None else run_folder.weights_digest({"labels": labels})
