"""The model card of a run, from what the trainer knows of it."""

import logging
import os
from collections.abc import Sized
from pathlib import Path
from typing import Any, cast

import accelerate
import timm
import torch
import transformers
from torch import nn

from ..data.input_adapter import input_statistics
from ..evaluation.processes import PRECISIONS
from ..hub import CardDataset, CardFields, CardMethod, CardModel, CardResult, CardTeacher, CardTraining
from ..hub.card_fields import LOCAL_DATA
from ..models import find_classifier
from . import run_folder
from .card_pairs import describe_head, describe_verification, slug
from .config import DistillationConfig
from .embedder import has_classes
from .methods import get_method
from .recipe_sections import DataArguments, Recipe, VerificationArguments
from .trainer import DistillationTrainer
from .training_record import hub_id, public_name


logger = logging.getLogger(__name__)

_METRICS = ("accuracy", "top5_accuracy", "mean_per_class_accuracy")


def describe_run(
    trainer: DistillationTrainer,
    dataset: CardDataset,
    results: dict[str, Any],
    eval_split: str | None = "test",
    augmentation: str = "none",
    weights_license: str = "apache-2.0",
    weights_license_name: str | None = None,
    weights_license_link: str | None = None,
    subject: str = "faces",
    preparation: str = "",
) -> CardFields:
    """
    Everything that the card of a finished run says.

    Args:
        trainer ([`DistillationTrainer`]): Its trainer.
        dataset ([`CardDataset`]): The training images.
        results (`dict[str, Any]`): What [`run_or_reuse`] or `trainer.evaluate()` returned. A card of one run says so in words; means over
            several seeds are what [`CardResult`] has `num_seeds` for.
        eval_split (`str`, *optional*, defaults to `"test"`): The split that accuracies of classes are of, in
            `dataset.splits`; `None` where there are none.
        augmentation (`str`, *optional*, defaults to `"none"`): Training augmentation, for people.
        weights_license (`str`, *optional*, defaults to `"apache-2.0"`): License of the weights, as the Hub spells it.
        weights_license_name, weights_license_link (`str`, *optional*): Of a `weights_license` of `"other"`.
        subject (`str`, *optional*, defaults to `"faces"`): With a verifier: what is on its images, one of [`SUBJECTS`].
        preparation (`str`, *optional*): With a verifier: how the images were prepared; its card needs that.

    Raises:
        ValueError: The trainer has no image processor, or the results have no number for a verification set.
    """
    args = trainer.args
    row = get_method(args.method or "plain")
    weights = args.loss_weights
    uses_temperature = (weights.kd > 0 or weights.teacher_head > 0) and args.kd_scale is None
    verifier = trainer.verifier
    return CardFields(
        model=_model(trainer, dataset),
        method=CardMethod(
            args.method or "plain",
            row.summary,
            weights,
            args.temperature if uses_temperature else None,
            describe_options(args),
        ),
        teacher=None if trainer.teacher is None else _teacher(trainer.teacher.model),
        dataset=dataset,
        results=_results(results, dataset, eval_split),
        training=_training(trainer, results, augmentation),
        license=weights_license,
        license_name=weights_license_name,
        license_link=weights_license_link,
        base_model=hub_id(trainer.identity["student"]["start"] or ""),
        verification=None
        if verifier is None
        else describe_verification(trainer.student, verifier, dataset, results, subject, preparation),
    )


def write_card(trainer: DistillationTrainer, recipe: Recipe, results: dict[str, Any]) -> None:
    """
    Writes `README.md` into the run's folder: the card of what `recipe` trained. Without anything that was evaluated there is
    nothing that a card could say.
    """
    if not recipe.evaluates:
        logger.info("nothing was evaluated, so that there is no model card; set `data.eval_split`")
        return
    data, verification = recipe.data, recipe.verification or VerificationArguments()
    train, evaluation = cast(Sized, trainer.train_dataset), cast(Sized | None, trainer.eval_dataset)
    trainer.card = describe_run(
        trainer,
        card_dataset(data, len(train), None if evaluation is None else len(evaluation)),
        results,
        eval_split=evaluated_split(data),
        augmentation=data.augmentation,
        weights_license=data.weights_license,
        weights_license_name=data.weights_license_name,
        weights_license_link=data.weights_license_link,
        subject=verification.subject,
        preparation=verification.preparation,
    )
    trainer.data_settings = _data_settings(data)
    trainer.create_model_card()


def _data_settings(data: DataArguments) -> dict[str, Any]:
    """What of section `data` decides about the images beside the card, without the place where they are."""
    names = ("config_name", "validation_fraction", "split_seed", "max_train_samples", "max_eval_samples")
    return {name: getattr(data, name) for name in (*names, "held_out_classes")}


def evaluated_split(data: DataArguments) -> str | None:
    """Name of the split that accuracies of classes are of; `None` where there is none."""
    return "validation" if data.validation_fraction else data.eval_split


def card_dataset(data: DataArguments, train_images: int, eval_images: int | None) -> CardDataset:
    """Section `data` as the card names it; `eval_images` is `None` where no split is evaluated."""
    folder = Path(data.name)
    title = data.title or folder.name
    # A card must not show where on somebody's disk the images were.
    dataset_id = f"{LOCAL_DATA}{slug(folder.name)}" if folder.exists() else data.name
    splits, evaluated = {data.train_split: train_images}, evaluated_split(data)
    if evaluated is not None and eval_images is not None:
        splits[evaluated] = eval_images
    return CardDataset(title, dataset_id, data.license, splits)


def _model(trainer: DistillationTrainer, dataset: CardDataset) -> CardModel:
    student, args = trainer.student, trainer.args
    processor: Any = trainer.processing_class
    if processor is None:
        raise ValueError("a card needs the image processor; pass `processing_class` to DistillationTrainer")
    statistics = input_statistics(processor, student)
    if statistics is None or statistics.size is None:
        raise ValueError(
            f"{type(processor).__name__} does not say which size and which statistics images have; a card needs it"
        )
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
        image_size=statistics.size,
        channel_order=statistics.channel_order,
        image_mean=statistics.mean,
        image_std=statistics.std,
        head=describe_head(student),
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
    return CardTeacher(
        public_name(config.name_or_path) if config.name_or_path else _backbone(model),
        _backbone(model),
        sum(p.numel() for p in (model if has_classes(model) else cast(Any, model).base_model).parameters()),
        around_head,
        metrics,
    )


def describe_options(args: DistillationConfig) -> dict[str, Any]:
    """The companion, and the options of the method that are not at their defaults."""
    companion = {} if args.companion_name is None else {"companion": args.companion_name}
    defaults = {
        "student_head": "own",
        "kd_scale": None,
        "embedding_distance": "cosine",
        "num_negatives": None,
        "negatives": None,
        "contrastive_size": None,
        "companion_options": None,
        "companion_warmup_epochs": 0.0,
        "pretraining_epochs": None,
        "pretraining_learning_rate": None,
        "class_sample_rate": 1.0,
        "label_smoothing_factor": 0.0,
        "projector": None,
        "eval_teacher_head_weight": 0.0,
        "teacher_precision": "auto",
    }
    changed = {name: getattr(args, name) for name, value in defaults.items() if getattr(args, name) != value}
    return {**companion, **changed}


def _results(results: dict[str, Any], dataset: CardDataset, split: str | None) -> tuple[CardResult, ...]:
    if split is None:
        return ()
    return tuple(
        CardResult(name, results[f"eval_{name}"], dataset.name, dataset.id, split, dataset.splits[split], num_seeds=1)
        for name in _METRICS
        if f"eval_{name}" in results
    )


def _training(trainer: DistillationTrainer, results: dict[str, Any], augmentation: str) -> CardTraining:
    args = trainer.args
    return CardTraining(
        epochs=args.num_train_epochs,
        batch_size=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        learning_rate=args.learning_rate,
        optimizer=describe_optimizer(args),
        schedule=describe_schedule(args),
        augmentation=augmentation,
        seed=args.seed,
        precision=PRECISIONS[trainer.accelerator.mixed_precision],
        hardware=_hardware(args),
        wall_seconds=results.get("train_seconds", trainer.train_seconds),
        versions={module.__name__: module.__version__ for module in (torch, transformers, accelerate, timm)},
    )


def describe_optimizer(args: DistillationConfig) -> str:
    """E.g. `sgd, momentum=0.9, weight decay 0.0005`."""
    settings = [str(getattr(args.optim, "value", args.optim)), args.optim_args, f"weight decay {args.weight_decay:g}"]
    return ", ".join(setting for setting in settings if setting)


def describe_schedule(args: DistillationConfig) -> str:
    """E.g. `cosine`, or `times 0.1 after epochs 150, 180`."""
    if args.lr_decay_epochs is None:
        kind = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
        # `TrainingArguments` has parsed the text that its annotation also allows.
        settings = cast(dict[str, Any], args.lr_scheduler_kwargs or {})
        options = [f"{name} {value}" for name, value in settings.items()]
        return ", ".join([kind, *options])
    return f"times {args.lr_decay_rate:g} after epochs {', '.join(map(str, args.lr_decay_epochs))}"


def _hardware(args: DistillationConfig) -> str:
    if args.device.type == "cuda":
        return f"{args.world_size} x {torch.cuda.get_device_name()}"
    return f"{os.cpu_count()} cores of a {args.device.type.upper()}, {args.world_size} process(es)"
