"""The model card of a run, from what the trainer knows of it."""

import os
import re
from collections.abc import Sized
from pathlib import Path
from typing import Any, cast

import accelerate
import timm
import torch
import transformers
from torch import nn

from ..hub import CardDataset, CardFields, CardMethod, CardModel, CardResult, CardTeacher, CardTraining
from ..models import find_classifier
from . import run_folder
from .config import DistillationConfig
from .methods import get_method
from .recipe_arguments import DataArguments, Recipe
from .trainer import DistillationTrainer


_PRECISIONS = {"no": "float32", "bf16": "bfloat16 autocast", "fp16": "float16 autocast", "fp8": "float8 autocast"}
_METRICS = ("accuracy", "top5_accuracy", "mean_per_class_accuracy")


def describe_run(
    trainer: DistillationTrainer,
    dataset: CardDataset,
    results: dict[str, Any],
    eval_split: str = "test",
    augmentation: str = "none",
    weights_license: str = "apache-2.0",
) -> CardFields:
    """
    Everything that the card of a finished run says.

    Args:
        trainer ([`DistillationTrainer`]): Its trainer.
        dataset ([`CardDataset`]): The training images.
        results (`dict[str, Any]`): What [`run_or_reuse`] returned.
        eval_split (`str`, *optional*, defaults to `"test"`): The split that the results are of, in `dataset.splits`.
        augmentation (`str`, *optional*, defaults to `"none"`): Training augmentation, for people.
        weights_license (`str`, *optional*, defaults to `"apache-2.0"`): License of the weights.
    """
    args = trainer.args
    row = get_method(args.method or "plain")
    weights = args.loss_weights
    softened = weights.kd > 0 or weights.teacher_head > 0
    return CardFields(
        model=_model(trainer, dataset),
        method=CardMethod(
            args.method or "plain", row.summary, weights, args.temperature if softened else None, _options(args)
        ),
        teacher=None if trainer.teacher is None else _teacher(trainer.teacher.model),
        dataset=dataset,
        results=_results(results, dataset, eval_split),
        training=_training(trainer, results, augmentation),
        license=weights_license,
    )


def write_card(trainer: DistillationTrainer, recipe: Recipe, results: dict[str, Any]) -> None:
    """Writes `README.md` into the run's folder: the card of what `recipe` trained."""
    data = recipe.data
    train, evaluation = cast(Sized, trainer.train_dataset), cast(Sized, trainer.eval_dataset)
    trainer.card = describe_run(
        trainer,
        card_dataset(data, len(train), len(evaluation)),
        results,
        eval_split=evaluated_split(data),
        augmentation=data.augmentation,
        weights_license=data.weights_license,
    )
    trainer.create_model_card()


def evaluated_split(data: DataArguments) -> str:
    """Name of the split that results are of."""
    return "validation" if data.validation_fraction else data.eval_split


def card_dataset(data: DataArguments, train_images: int, eval_images: int) -> CardDataset:
    """Section `data` as the card names it."""
    folder = Path(data.name)
    title = data.title or folder.name
    # A card must not show where on somebody's disk the images were.
    slug = re.sub(r"[^A-Za-z0-9]+", "-", folder.name).strip("-") or "images"
    dataset_id = f"local/{slug}" if folder.exists() else data.name
    splits = {data.train_split: train_images, evaluated_split(data): eval_images}
    return CardDataset(title, dataset_id, data.license, splits)


def _model(trainer: DistillationTrainer, dataset: CardDataset) -> CardModel:
    student, args = trainer.student, trainer.args
    processor: Any = trainer.processing_class
    if processor is None:
        raise ValueError("a card needs the image processor; pass `processing_class` to DistillationTrainer")
    backbone = _backbone(student)
    plain = f"{backbone}-{dataset.id.split('/')[-1]}-{args.method or 'plain'}".replace("/", "-").replace("_", "-")
    repo_id = args.hub_model_id or f"your-name/{plain}"
    return CardModel(
        name=repo_id.split("/")[-1],
        repo_id=repo_id,
        backbone=backbone,
        embedding_size=find_classifier(student).in_features,
        num_parameters=sum(parameter.numel() for parameter in student.parameters()),
        num_labels=student.config.num_labels,
        image_size=processor.size["height"],
        channel_order=processor.channel_order,
        image_mean=tuple(processor.image_mean),
        image_std=tuple(processor.image_std),
    )


def _backbone(model: Any) -> str:
    described = run_folder.describe_model(model)
    return described["backbone"] or model.config.model_type


def _teacher(model: nn.Module) -> CardTeacher:
    config: Any = model.config
    folder = Path(config.name_or_path) if config.name_or_path else None
    record = run_folder.read_run(folder) if folder is not None and folder.is_dir() else None
    results = (record or {}).get("results", {})
    metrics = {name: results[f"eval_{name}"] for name in _METRICS if f"eval_{name}" in results}
    around_head = bool((record or {}).get("identity", {}).get("shared_head"))
    name = folder.name if folder is not None and folder.is_dir() else config.name_or_path
    return CardTeacher(
        name or _backbone(model),
        _backbone(model),
        sum(parameter.numel() for parameter in model.parameters()),
        around_head,
        metrics,
    )


def _options(args: DistillationConfig) -> dict[str, Any]:
    defaults = {
        "student_head": "own",
        "kd_scale": None,
        "embedding_distance": "cosine",
        "projector": None,
        "eval_teacher_head_weight": 0.0,
        "teacher_precision": "auto",
    }
    return {name: getattr(args, name) for name, value in defaults.items() if getattr(args, name) != value}


def _results(results: dict[str, Any], dataset: CardDataset, split: str) -> tuple[CardResult, ...]:
    found = [name for name in _METRICS if f"eval_{name}" in results]
    images = dataset.splits[split]
    return tuple(
        CardResult(name, results[f"eval_{name}"], dataset.name, dataset.id, split, images, num_seeds=1)
        for name in found
    )


def _training(trainer: DistillationTrainer, results: dict[str, Any], augmentation: str) -> CardTraining:
    args = trainer.args
    optimizer = str(getattr(args.optim, "value", args.optim))
    settings = [optimizer, args.optim_args, f"weight decay {args.weight_decay:g}"]
    return CardTraining(
        epochs=args.num_train_epochs,
        batch_size=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        learning_rate=args.learning_rate,
        optimizer=", ".join(setting for setting in settings if setting),
        schedule=_schedule(args),
        augmentation=augmentation,
        seed=args.seed,
        precision=_PRECISIONS[trainer.accelerator.mixed_precision],
        hardware=_hardware(args),
        wall_seconds=results["train_seconds"],
        versions={module.__name__: module.__version__ for module in (torch, transformers, accelerate, timm)},
    )


def _schedule(args: DistillationConfig) -> str:
    if args.lr_decay_epochs is None:
        return str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    return f"times {args.lr_decay_rate:g} after epochs {', '.join(map(str, args.lr_decay_epochs))}"


def _hardware(args: DistillationConfig) -> str:
    if args.device.type == "cuda":
        return f"{args.world_size} x {torch.cuda.get_device_name()}"
    return f"{os.cpu_count()} cores of a {args.device.type.upper()}, {args.world_size} process(es)"
