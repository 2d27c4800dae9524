"""What is published of how a model was trained, in a form that programs read."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..hub import CardFields
from . import run_folder
from .checkpointing import RunFolderTrainer


# Those of the method first, then those of the optimizer, the schedule and the arithmetic.
_ARGUMENTS = (
    "temperature",
    "kd_scale",
    "embedding_distance",
    "num_negatives",
    "negatives",
    "contrastive_size",
    "companion_options",
    "companion_warmup_epochs",
    "pretraining_epochs",
    "pretraining_learning_rate",
    "student_head",
    "class_sample_rate",
    "large_head_kernel",
    "projector",
    "eval_teacher_head_weight",
    "teacher_precision",
    "teacher_cache_dtype",
    "teacher_cache_moments",
    "channels_last",
    "fold_teacher",
    "optim",
    "optim_args",
    "learning_rate",
    "weight_decay",
    "decay_norm_and_bias",
    "max_grad_norm",
    "num_train_epochs",
    "max_steps",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "lr_decay_epochs",
    "lr_decay_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "bf16",
    "fp16",
    "seed",
    "data_seed",
)


def training_record(trainer: RunFolderTrainer, card: CardFields, data: dict[str, Any] | None) -> dict[str, Any]:
    """
    The content of `training_config.json`. It has no path of this machine.

    Args:
        trainer ([`RunFolderTrainer`]): Of the run.
        card ([`CardFields`]): Of the run; names data and teacher.
        data (`dict[str, Any]`, *optional*): Settings of the data that the card does not have, e.g. `split_seed`.
    """
    args = trainer.args
    return {
        "method": args.method or "plain",
        "weights": asdict(args.loss_weights),
        "companion": args.companion_name,
        **{name: _plain(getattr(args, name)) for name in _ARGUMENTS},
        "processes": args.world_size,
        "student": {**run_folder.describe_model(trainer.student), "start": _start(trainer)},
        "teacher": None if card.teacher is None else {"name": card.teacher.name, **trainer.identity["teacher"]},
        "data": {
            "id": card.dataset.id,
            "splits": dict(card.dataset.splits),
            "augmentation": card.training.augmentation,
            **(data or {}),
        },
        "versions": dict(card.training.versions),
    }


def _plain(value: Any) -> Any:
    """Members of an enumeration by their value."""
    return getattr(value, "value", value)


def _start(trainer: RunFolderTrainer) -> str | None:
    start = trainer.identity["student"]["start"]
    return public_name(start) if start else None


def public_name(name_or_path: str) -> str:
    """A Hub id, with its revision if it has one, as it is; of anything else, which may be a path, the last part."""
    return name_or_path if hub_id(name_or_path) else Path(name_or_path).name


def hub_id(name_or_path: str) -> str | None:
    """The id of `id` or `id@revision`; `None` of a folder, and of what cannot be an id, even if no such folder exists."""
    name = name_or_path.partition("@")[0]
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return None if Path(name_or_path).exists() or Path(name).exists() else name
