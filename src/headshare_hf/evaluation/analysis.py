"""A student beside its teacher on a set of images: what it gets right, how sure it is, and whose classifier fits it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset

from ..data.dataset import collate
from ..data.input_adapter import InputAdapter, input_statistics
from ..models import check_label_maps, embedding_tap, find_classifier
from ..models.backbone_face import height_and_width
from .classification import ClassificationCounts, head_similarity
from .extraction import _check_counts
from .modes import evaluating
from .reliability import calibration
from .representation import CollapsedEmbeddingError, class_alignment, effective_dimension, linear_cka


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
    alpha_th: float = 0.5,
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

    These two and the ones like them below are `None` where all images have the same embedding: a network that has
    collapsed has an accuracy, which must not get lost, but no directions.

    With a teacher, with `None` for what needs embeddings of the same width where the widths differ:

    - `agreement`: share of images for which both predict the same class
    - `teacher_accuracy`: of the teacher
    - `teacher_head_accuracy`: of the teacher's classifier on the student's embeddings
    - `mixed_accuracy`: of the mixture p' = (1 - a) p + a p_TH of what both classifiers make of the student's embeddings,
      the prediction of arXiv 2201.06945, and `mixed_alpha_th`, its a
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
        teacher_processor (`Any`, *optional*): The teacher's. Where both are known, the teacher is shown the images as it
            wants them, as in training; a timm network knows that itself. Otherwise both are given the same pixel values.
        alpha_th (`float`, *optional*, defaults to 0.5): Share of the teacher's classifier in the mixture, in [0, 1].

    Raises:
        ValueError: There is no image or label, an argument is out of range, the models have other classes or are known
            to read other images, or an output is not finite.
    """
    limit = {} if max_images is None else {"max_images": max_images}
    _check_counts(len(dataset), "the data set", batch_size=batch_size, **limit)  # type: ignore[arg-type]
    if not 0 <= alpha_th <= 1:
        raise ValueError(f"`alpha_th` is {alpha_th}; it must be in [0, 1]")
    models = [(student, InputAdapter(None, None))]
    if teacher is not None:
        models.append((teacher, _teacher_input(student, teacher, processor, teacher_processor)))
    outputs, labels = _run(models, _loader(dataset, batch_size, max_images, num_workers))
    head = find_classifier(student)
    numbers = _own_numbers(head, outputs[0], labels)
    if teacher is not None:
        numbers |= _shared_numbers(head, find_classifier(teacher), outputs, labels, batch_size)
        numbers |= _mixed_numbers(outputs[0], find_classifier(teacher), labels, batch_size, alpha_th)
    return numbers


@torch.no_grad()
def check_comparable(
    student: nn.Module,
    teacher: nn.Module,
    dataset: Dataset,
    processor: Any | None = None,
    teacher_processor: Any | None = None,
) -> None:
    """
    Refuses a teacher that a student cannot be compared with, before the student is trained: the teacher alone is run, on
    two images.

    Args:
        student, teacher, dataset, processor, teacher_processor: As [`analyze_student`] takes them.

    Raises:
        ValueError: As in [`analyze_student`].
    """
    adapter = _teacher_input(student, teacher, processor, teacher_processor)
    find_classifier(teacher)
    few = Subset(dataset, range(min(2, len(dataset))))  # type: ignore[arg-type]
    _run([(teacher, adapter)], _loader(few, len(few), None, 0))


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


def _run(models: Sequence[tuple[nn.Module, InputAdapter]], loader: DataLoader) -> tuple[list[_Outputs], torch.Tensor]:
    """Every model on every batch, which is read once and adapted to each."""
    found: list[list[_Outputs]] = [[] for _ in models]
    labels = []
    with ExitStack() as modes:
        for model, _ in models:
            modes.enter_context(evaluating(model))
        for batch in loader:
            missing = {"pixel_values", "labels"} - batch.keys()
            if missing:
                raise ValueError(f"the data set gives {', '.join(batch)} but no `{missing.pop()}`; both are needed")
            labels.append(batch["labels"])
            for (model, adapter), parts in zip(models, found, strict=True):
                parts.append(_run_batch(model, adapter, batch["pixel_values"]))
    return [_Outputs(*map(torch.cat, zip(*parts, strict=True))) for parts in found], torch.cat(labels)


def _run_batch(model: nn.Module, adapter: InputAdapter, pixel_values: torch.Tensor) -> _Outputs:
    tap, weight = embedding_tap(model), next(model.parameters())
    output = model(pixel_values=adapter(pixel_values.to(weight.device)).to(weight.dtype))
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
        "alignment": _geometry(class_alignment, outputs.embeddings, labels, head.weight),
        "effective_dimension": _geometry(effective_dimension, outputs.embeddings),
    }


def _shared_numbers(
    head: Any, teacher_head: Any, outputs: Sequence[_Outputs], labels: torch.Tensor, batch_size: int
) -> dict[str, Any]:
    own, other = outputs
    fits = head.in_features == teacher_head.in_features
    return {
        "agreement": (own.logits.argmax(dim=1) == other.logits.argmax(dim=1)).double().mean().item(),
        "teacher_accuracy": _accuracy(other.logits, labels),
        "teacher_head_accuracy": _accuracy(_crossed(teacher_head, own, batch_size), labels) if fits else None,
        "student_head_on_teacher": _accuracy(_crossed(head, other, batch_size), labels) if fits else None,
        "cka": _geometry(linear_cka, own.embeddings, other.embeddings),
        "cka_debiased": _geometry(linear_cka, own.embeddings, other.embeddings, True) if len(labels) > 3 else None,
        "teacher_alignment": _geometry(class_alignment, own.embeddings, labels, teacher_head.weight) if fits else None,
        "teacher_effective_dimension": _geometry(effective_dimension, other.embeddings),
        **_head_numbers(head, teacher_head, fits),
    }


def _geometry(measure: Callable[..., float], *arguments: Any) -> float | None:
    try:
        return measure(*arguments)
    except CollapsedEmbeddingError:
        return None


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


def _mixed_numbers(
    own: _Outputs, teacher_head: Any, labels: torch.Tensor, batch_size: int, alpha_th: float
) -> dict[str, float | None]:
    found = None
    if own.embeddings.shape[1] == teacher_head.in_features:
        shared = _crossed(teacher_head, own, batch_size).double().softmax(dim=1)
        found = _accuracy((1 - alpha_th) * own.logits.double().softmax(dim=1) + alpha_th * shared, labels)
    return {"mixed_accuracy": found, "mixed_alpha_th": alpha_th}


def _crossed(head: Any, outputs: _Outputs, batch_size: int) -> torch.Tensor:
    """Logits of a classifier on embeddings that are another network's."""
    weight = head.weight
    parts = outputs.embeddings.split(batch_size)
    return torch.cat([head(rows.to(weight.device, weight.dtype)).float().cpu() for rows in parts])


def _accuracy(scores: torch.Tensor, labels: torch.Tensor) -> float:
    return _accuracies(scores, labels)["accuracy"]


def _accuracies(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    counts = ClassificationCounts(logits.shape[1])
    counts.update(logits, labels)
    return counts.compute()


def _teacher_input(student: Any, teacher: Any, processor: Any, teacher_processor: Any) -> InputAdapter:
    """
    From the student's pixel values to the teacher's, as in training.

    Raises:
        ValueError: The classes are others, or the models are known to read other images.
    """
    check_label_maps(teacher, student)
    _check_same(student, teacher, "num_channels")
    own, other = input_statistics(processor), input_statistics(teacher_processor, teacher)
    if own is None or other is None:
        _check_same(student, teacher, "image_size")
        return InputAdapter(None, None)
    return InputAdapter(own, other)


def _check_same(student: Any, teacher: Any, name: str) -> None:
    own, other = (getattr(model.config, name, None) for model in (student, teacher))
    if own is None or other is None:
        return
    if name == "image_size":
        own, other = height_and_width(own), height_and_width(other)
    if own != other:
        raise ValueError(
            f"`{name}` is {own} for the student and {other} for the teacher, and both are given the same pixel values "
            "here; give `processor` and `teacher_processor`, take a teacher of the same input, or `teacher=None`"
        )
