"""A student beside its teacher on a set of images: what it gets right, how sure it is, and whose classifier fits it."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from ..data.dataset import collate
from ..data.pixels import working_size
from ..models import check_label_maps, embedding_tap, find_classifier
from ..models.backbone_face import height_and_width
from .classification import ClassificationCounts, head_similarity
from .extraction import _check_counts, _evaluating
from .reliability import calibration
from .representation import class_alignment, effective_dimension, linear_cka


# What an image processor does to the pixels of an image at its final size.
_PIXEL_FIELDS = ("do_rescale", "rescale_factor", "do_normalize", "channel_order")


class _Outputs(NamedTuple):
    """What a model gave for all images, on the CPU: `(num_images, num_labels)` and `(num_images, embedding_size)`."""

    logits: torch.Tensor
    embeddings: torch.Tensor


@torch.no_grad()
def analyze_student(
    student: nn.Module,
    teacher: nn.Module | None,
    dataset: Dataset,
    *,
    batch_size: int = 256,
    max_images: int | None = None,
    num_workers: int = 0,
    processor: Any | None = None,
    teacher_processor: Any | None = None,
) -> dict[str, Any]:
    """
    The numbers by which students of several methods are compared, ready for JSON. Rates are fractions in [0, 1].

    Of the student alone:

    - `num_images`; `accuracy`, `mean_per_class_accuracy` and, with more than five classes, `top5_accuracy`, see
      [`ClassificationCounts`]
    - `nll`: mean cross-entropy, in nats
    - `expected_calibration_error`, and `calibration`: its bins, see [`calibration`]
    - `alignment`: of the embeddings with the own classifier's class weights, see [`class_alignment`]
    - `effective_dimension`: of the embeddings, see [`effective_dimension`]

    With a teacher, with `None` for what needs embeddings of the same width where the widths differ:

    - `agreement`: share of images for which both predict the same class
    - `teacher_head_accuracy`: of the teacher's classifier on the student's embeddings
    - `student_head_on_teacher`: accuracy of the student's classifier on the teacher's embeddings
    - `cka`, `cka_debiased`: of both embeddings, whatever their widths, see [`linear_cka`]
    - `teacher_alignment`: of the student's embeddings with the teacher's class weights
    - `teacher_effective_dimension`: of the teacher's embeddings
    - `head_similarity`, `head_similarity_min`, `head_bias_distance`: `cosine_mean`, `cosine_min` and `bias_distance`
      of [`head_similarity`]

    Args:
        student (`nn.Module`):
            [`HeadShareForImageClassification`], or a classifier of transformers or timm that [`find_classifier`]
            understands. It stays on its device, and every module in its mode.
        teacher (`nn.Module`, *optional*): Likewise. Its classes and their order have to be the student's.
        dataset (`Dataset`):
            Map-style, e.g. [`ImageClassificationDataset`]; its items or, from `__getitems__`, batches have
            `pixel_values`, as both models read them, and `labels`.
        batch_size (`int`, *optional*, defaults to 256): Images at a time.
        max_images (`int`, *optional*): Take that many images at random, always the same ones of a data set.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode images.
        processor (`Any`, *optional*): The student's image processor, with which the data set was prepared.
        teacher_processor (`Any`, *optional*): The teacher's. It is compared with the student's where both are given.

    Raises:
        ValueError: There is no image or label, an argument is not positive, the models have other classes or are known
            to read other pixel values, or an output is not finite.
    """
    limit = {} if max_images is None else {"max_images": max_images}
    _check_counts(len(dataset), "the data set", batch_size=batch_size, **limit)  # type: ignore[arg-type]
    if teacher is not None:
        check_label_maps(teacher, student)
        _check_same_input(student, teacher, processor, teacher_processor)
    models = [student] if teacher is None else [student, teacher]
    loader = _loader(dataset, batch_size, max_images, num_workers)
    outputs, labels = _run(models, loader)
    head = find_classifier(student)
    numbers = _own_numbers(head, outputs[0], labels)
    if teacher is not None:
        numbers |= _shared_numbers(head, find_classifier(teacher), outputs, labels, batch_size)
    return numbers


def _loader(dataset: Dataset, batch_size: int, max_images: int | None, num_workers: int) -> DataLoader:
    num_images = len(dataset)  # type: ignore[arg-type]
    chosen = torch.arange(num_images)
    if max_images is not None:
        # The first ones would be of the first classes, where a data set is sorted.
        shuffled = torch.randperm(num_images, generator=torch.Generator().manual_seed(0))
        chosen = shuffled[:max_images].sort().values
    batches = [rows.tolist() for rows in chosen.split(batch_size)]
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        # A loader draws a number even where it shuffles nothing; the random state stays as it was.
        generator=torch.Generator(),
    )


def _run(models: Sequence[nn.Module], loader: DataLoader) -> tuple[list[_Outputs], torch.Tensor]:
    """Every model on every batch, which is read once."""
    found: list[list[_Outputs]] = [[] for _ in models]
    labels = []
    with ExitStack() as modes:
        for model in models:
            modes.enter_context(_evaluating(model))
        for batch in loader:
            missing = {"pixel_values", "labels"} - batch.keys()
            if missing:
                raise ValueError(f"the data set gives {', '.join(batch)} but no `{missing.pop()}`; both are needed")
            labels.append(batch["labels"])
            for model, parts in zip(models, found, strict=True):
                parts.append(_run_batch(model, batch["pixel_values"]))
    return [_Outputs(*map(torch.cat, zip(*parts, strict=True))) for parts in found], torch.cat(labels)


def _run_batch(model: nn.Module, pixel_values: torch.Tensor) -> _Outputs:
    tap, weight = embedding_tap(model), next(model.parameters())
    output = model(pixel_values=pixel_values.to(weight.device, weight.dtype))
    embeddings = output.embeddings if tap is None else tap.take()
    return _Outputs(output.logits.float().cpu(), embeddings.float().cpu())


def _own_numbers(head: Any, outputs: _Outputs, labels: torch.Tensor) -> dict[str, Any]:
    logits = outputs.logits.double()
    accuracies = _accuracies(logits, labels)
    sureness = calibration(logits.softmax(dim=1), labels)
    fields = {name: list(value) for name, value in sureness._asdict().items() if isinstance(value, tuple)}
    return {
        "num_images": len(labels),
        **accuracies,
        "nll": F.cross_entropy(logits, labels.long()).item(),
        "expected_calibration_error": sureness.expected_calibration_error,
        "calibration": {"expected_calibration_error": sureness.expected_calibration_error, **fields},
        "alignment": class_alignment(outputs.embeddings, labels, head.weight),
        "effective_dimension": effective_dimension(outputs.embeddings),
    }


def _shared_numbers(
    head: Any, teacher_head: Any, outputs: Sequence[_Outputs], labels: torch.Tensor, batch_size: int
) -> dict[str, Any]:
    own, other = outputs
    fits = head.in_features == teacher_head.in_features
    return {
        "agreement": (own.logits.argmax(dim=1) == other.logits.argmax(dim=1)).double().mean().item(),
        "teacher_head_accuracy": _crossed(teacher_head, own, labels, batch_size) if fits else None,
        "student_head_on_teacher": _crossed(head, other, labels, batch_size) if fits else None,
        "cka": linear_cka(own.embeddings, other.embeddings),
        "cka_debiased": linear_cka(own.embeddings, other.embeddings, debiased=True) if len(labels) > 3 else None,
        "teacher_alignment": class_alignment(own.embeddings, labels, teacher_head.weight) if fits else None,
        "teacher_effective_dimension": effective_dimension(other.embeddings),
        **_head_numbers(head, teacher_head, fits),
    }


def _head_numbers(head: Any, teacher_head: Any, fits: bool) -> dict[str, float | None]:
    found = {}
    if fits:
        biases = (getattr(layer, "bias", None) for layer in (head, teacher_head))
        found = head_similarity(head.weight, teacher_head.weight, *biases)
    return {
        "head_similarity": found.get("cosine_mean"),
        "head_similarity_min": found.get("cosine_min"),
        "head_bias_distance": found.get("bias_distance"),
    }


def _crossed(head: Any, outputs: _Outputs, labels: torch.Tensor, batch_size: int) -> float:
    """Accuracy of a classifier on embeddings that are another network's."""
    weight = head.weight
    parts = outputs.embeddings.split(batch_size)
    logits = [head(rows.to(weight.device, weight.dtype)).float().cpu() for rows in parts]
    return _accuracies(torch.cat(logits), labels)["accuracy"]


def _accuracies(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    counts = ClassificationCounts(logits.shape[1])
    counts.update(logits, labels)
    return counts.compute()


def _check_same_input(student: Any, teacher: Any, processor: Any, teacher_processor: Any) -> None:
    """Refuses models that are known to read other pixel values."""
    settings, other_settings = _input_settings(student, processor), _input_settings(teacher, teacher_processor)
    for name in settings.keys() & other_settings.keys():
        if settings[name] != other_settings[name]:
            raise ValueError(
                f"`{name}` is {settings[name]} for the student and {other_settings[name]} for the teacher, and both "
                "are given the same pixel values here; take a teacher of the same input, or `teacher=None`"
            )


def _input_settings(model: Any, processor: Any) -> dict[str, Any]:
    """What is known of the pixel values that a model reads."""
    size, channels = getattr(model.config, "image_size", None), getattr(model.config, "num_channels", None)
    found = {"image_size": None if size is None else height_and_width(size), "num_channels": channels}
    if getattr(processor, "image_mean", None) is not None:
        found |= {name: getattr(processor, name, None) for name in _PIXEL_FIELDS}
        found |= {name: list(getattr(processor, name)) for name in ("image_mean", "image_std")}
        found["size"] = working_size(processor)
    return {name: value for name, value in found.items() if value is not None}
