"""From a recipe to models, data sets and a finished run. The example scripts are thin covers of this module."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import set_seed

from ..data import ImageClassificationDataset, draw_pairs, hold_out_classes, load_splits, load_verification_set
from ..data.images import LabeledSplit
from ..evaluation import Verifier
from ..hub.card_checks import check_commerce
from ..models import HeadShareConfig, HeadShareForImageClassification, HeadShareImageProcessor, with_head_length
from .loading import load_classifier, load_teacher, load_with_new_head, name_classes
from .recipe_sections import HELD_OUT, DataArguments, ModelArguments, Recipe, VerificationArguments
from .runs import StudentHeadStages, attach_head_similarity, run_or_reuse, run_student_head_kd
from .trainer import DistillationTrainer


@dataclass
class RecipeData:
    """
    The images of a recipe.

    Attributes:
        train ([`ImageClassificationDataset`]): What is trained on.
        evaluation ([`ImageClassificationDataset`], *optional*): What is evaluated on.
        processor ([`HeadShareImageProcessor`]): How both were prepared; saved with the student.
        verifier ([`Verifier`], *optional*): Pairs of images that embeddings are scored on.
    """

    train: ImageClassificationDataset
    evaluation: ImageClassificationDataset | None
    processor: HeadShareImageProcessor
    verifier: Verifier | None = None

    @property
    def label_names(self) -> list[str]:
        """Name of every class, in order."""
        return self.train.label_names

    def for_trainer(self) -> dict[str, Any]:
        """The arguments of [`DistillationTrainer`] that these are."""
        return {
            "train_dataset": self.train,
            "eval_dataset": self.evaluation,
            "processing_class": self.processor,
            "verifier": self.verifier,
        }


def build_data(data: DataArguments, seed: int, verification: VerificationArguments | None = None) -> RecipeData:
    """
    Loads what the sections `data` and `verification` describe.

    Args:
        data ([`DataArguments`]): The section.
        seed (`int`): Of the augmentation.
        verification ([`VerificationArguments`], *optional*): The section.

    Raises:
        ValueError: A section contradicts itself, the other one, or the images.
    """
    processor = _build_processor(data)
    splits, held_out = _load(data), []
    if data.held_out_classes:
        if verification is None:
            raise ValueError("`data.held_out_classes` has no effect without section `verification`")
        parts = [hold_out_classes(split, data.held_out_classes) for split in splits]
        splits, held_out = [part[0] for part in parts], [part[1] for part in parts]
    options: dict[str, Any] = {"seed": seed, "skip_corrupt": data.skip_corrupt}
    options |= {"cache_images": data.cache_images, "image_cache": data.image_cache}
    augmentation: dict[str, Any] = {"augmentation": data.augmentation, "augmentation_views": data.augmentation_views}
    return RecipeData(
        # A position for each image, which losses with a memory need.
        ImageClassificationDataset(splits[0], processor, training=True, with_index=True, **augmentation, **options),
        ImageClassificationDataset(splits[1], processor, **options) if len(splits) > 1 else None,
        processor,
        None if verification is None else _build_verifier(verification, held_out, processor),
    )


def _build_processor(data: DataArguments) -> HeadShareImageProcessor:
    statistics: dict[str, Any] = {"image_mean": data.mean, "image_std": data.std, "channel_order": data.channel_order}
    size = dict(zip(("height", "width"), data.height_and_width, strict=True))
    if data.resize is None:
        return HeadShareImageProcessor(size=size, **statistics)
    shorter = {"shortest_edge": data.resize}
    return HeadShareImageProcessor(size=shorter, do_center_crop=True, crop_size=size, **statistics)


def _load(data: DataArguments) -> list[LabeledSplit]:
    names = [data.train_split] if data.eval_split is None else [data.train_split, data.eval_split]
    return load_splits(
        data.name,
        names,
        config_name=data.config_name,
        image_column=data.image_column,
        label_column=data.label_column,
        validation_fraction=data.validation_fraction,
        max_samples=(data.max_train_samples, data.max_eval_samples)[: len(names)],
        # Not the training's: a student must not be validated on what a teacher with another seed has seen.
        seed=data.split_seed,
    )


def _build_verifier(
    verification: VerificationArguments, held_out: list[LabeledSplit], processor: HeadShareImageProcessor
) -> Verifier:
    sets = [load_verification_set(path) for path in verification.sets]
    if held_out:
        sets.append(draw_pairs(held_out, HELD_OUT, verification.held_out_pairs))
    if not sets:
        raise ValueError("section `verification` needs `sets`, or `data.held_out_classes` to draw pairs of")
    names = [pairs.name for pairs in sets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"`verification.sets` has two sets called {twice[0]!r}; rename a file or folder")
    return Verifier(
        sets,
        processor,
        flip=verification.flip,
        every_epochs=verification.every_epochs,
        bootstrap=verification.bootstrap,
    )


def build_model(model: ModelArguments, data: DataArguments, label_names: list[str], seed: int) -> nn.Module:
    """
    The network of a model section: trained weights, or new ones drawn from `seed`.

    Args:
        model ([`ModelArguments`]): The section.
        data ([`DataArguments`]): Says the image size and the number of channels.
        label_names (`list[str]`): Name of every class, in order.
        seed (`int`): Of random weights, where the section has none of its own.

    Raises:
        ValueError: The section names neither weights nor a backbone, or `same_label_order` is claimed for another number
            of classes.
    """
    if model.embeddings_only:
        raise ValueError("`embeddings_only` is for section `teacher`, whose classifier may go unread; leave it out")
    if model.new_head:
        set_seed(seed if model.init_seed is None else model.init_seed)
        return load_with_new_head(str(model.name_or_path), label_names, model.revision)
    if model.name_or_path is not None:
        network = load_classifier(model.name_or_path, model.revision)
        if model.same_label_order:
            _name_classes(network, label_names)
        return network
    if model.backbone is None:
        raise ValueError("a model section needs `name_or_path` (trained weights) or `backbone` (a new network)")
    set_seed(seed if model.init_seed is None else model.init_seed)
    config = HeadShareConfig(
        backbone=model.backbone,
        backbone_kwargs=model.backbone_kwargs,
        embedding_size=model.embedding_size,
        projector=model.projector,
        map_projector=model.map_projector,
        head_type=model.head_type,
        head_scale=model.head_scale,
        head_margin=model.head_margin,
        head_gradient=model.head_gradient,
        image_size=data.image_size,
        num_channels=len(data.mean),
        id2label=dict(enumerate(label_names)),
        label2id={name: index for index, name in enumerate(label_names)},
    )
    return HeadShareForImageClassification(config)


def build_teacher(model: ModelArguments, label_names: list[str]) -> tuple[nn.Module, Any]:
    """
    The trained teacher of a recipe and its image processor.

    Args:
        model ([`ModelArguments`]): Section `teacher`.
        label_names (`list[str]`): Name of every class of the data, in order.

    Raises:
        ValueError: The section names no trained weights, or `same_label_order` is claimed for another number of
            classes.
    """
    if model.name_or_path is None:
        raise ValueError(
            "section `teacher` needs `name_or_path`, trained weights; train one with examples/run_train.py"
        )
    if model.new_head:
        raise ValueError("section `teacher` has `new_head`, and a new classifier cannot teach; leave it out")
    teacher, processor = load_teacher(model.name_or_path, model.revision, embeddings_only=model.embeddings_only)
    if model.same_label_order:
        _name_classes(teacher, label_names)
    return teacher, processor


def _name_classes(model: Any, label_names: list[str]) -> None:
    """Calls the classes of a model as the data does, which its caller vouches for."""
    if model.config.num_labels != len(label_names):
        raise ValueError(
            f"`same_label_order` is set, but the model has {model.config.num_labels} classes and the data {len(label_names)}"
        )
    name_classes(model.config, label_names)


def check_recipe(recipe: Recipe) -> None:
    """
    What a recipe alone shows to be wrong, also what would else show only when its training is over.

    Raises:
        ValueError: A section is missing or has no effect, or no model card could be written.
    """
    verification, data, training = recipe.verification, recipe.data, recipe.training
    if recipe.shared_teacher is not None and recipe.sh_kd is None:
        raise ValueError("section `shared_teacher` has no effect without section `sh_kd`")
    if verification is not None and not verification.preparation.strip():
        raise ValueError(
            "section `verification` needs `preparation`, one line for the model card about how the images were made, e.g. "
            "'aligned by five points to 112 x 112 pixels'"
        )
    if verification is not None:
        check_commerce(data.weights_license, data.license, "data.weights_license")
    if training.push_to_hub and not recipe.evaluates:
        raise ValueError(
            "`push_to_hub` needs a model card, and nothing is evaluated that it could report; set `data.eval_split`"
        )
    if training.resume_from_checkpoint or training.do_predict:
        name = "resume_from_checkpoint" if training.resume_from_checkpoint else "do_predict"
        raise ValueError(
            f"`training.{name}` has no effect: the same command goes on with a run that was cut, and evaluates one that is "
            "finished; leave it out"
        )


def run_recipe(recipe: Recipe) -> tuple[DistillationTrainer, dict[str, Any]]:
    """
    Trains what a recipe describes, or goes on with it, or uses what is finished.

    Args:
        recipe ([`Recipe`]): The sections.

    Returns:
        `tuple[DistillationTrainer, dict[str, Any]]`: The trainer of the (last) run, and its results.
    """
    check_recipe(recipe)
    data = build_data(recipe.data, recipe.training.seed, recipe.verification)
    if recipe.sh_kd is not None:
        return _run_chain(recipe, data)
    return _run_single(recipe, data)


def _run_single(recipe: Recipe, data: RecipeData) -> tuple[DistillationTrainer, dict[str, Any]]:
    args = recipe.training
    student = build_model(recipe.student, recipe.data, data.label_names, args.seed)
    teacher, processor = build_teacher(recipe.teacher, data.label_names) if recipe.teacher else (None, None)
    shared = load_classifier(recipe.student.shared_head_from) if recipe.student.shared_head_from else None
    if shared is not None and recipe.student.shared_head_length is not None:
        shared = with_head_length(shared, recipe.student.shared_head_length)
    trainer = DistillationTrainer(
        student,
        args,
        teacher=teacher,
        teacher_processing_class=processor,
        shared_head_from=shared,
        **data.for_trainer(),
    )
    if teacher is not None:
        attach_head_similarity(trainer, teacher)
    return trainer, run_or_reuse(trainer)


def _run_chain(recipe: Recipe, data: RecipeData) -> tuple[DistillationTrainer, dict[str, Any]]:
    options, shared = recipe.sh_kd, recipe.shared_teacher
    if options is None or shared is None:
        raise ValueError("SH-KD needs section `shared_teacher`, the network that is trained around the student's head")
    teacher, processor = build_teacher(recipe.teacher, data.label_names) if recipe.teacher else (None, None)
    stages = StudentHeadStages(
        new_student=lambda seed: build_model(recipe.student, recipe.data, data.label_names, seed),
        new_teacher=lambda seed: build_model(shared, recipe.data, data.label_names, seed),
        temporary_method=options.temporary_method,
        teacher=teacher,
        teacher_processing_class=processor,
        temporary_student=load_classifier(options.temporary_student) if options.temporary_student else None,
        temporary_epochs=options.temporary_epochs,
        teacher_epochs=options.teacher_epochs,
        head_length=options.head_length,
    )
    trainer, results = run_student_head_kd(stages, recipe.training, **data.for_trainer())
    return trainer, {**results[list(results)[-1]], "runs": results}
