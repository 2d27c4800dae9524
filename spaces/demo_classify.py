"""What a student and its teacher say of an image, and how far they agree."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from demo_errors import DemoError
from demo_models import Classifier, is_beside, load_classifier, recorded_teacher, resolve
from PIL import Image

from headshare_hf.models import check_label_maps


TOP = 5


class Guess(NamedTuple):
    """A class, by its number and name, with its probability in [0, 1]."""

    number: int
    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """
    Attributes:
        top (`tuple[Guess, ...]`): The likeliest classes, at most five, the likeliest first.
        log_probabilities (`torch.Tensor` of shape `(num_labels,)`): Of all classes, in double precision.
        milliseconds (`float`): What the network took for this image, without decoding and resizing.
    """

    top: tuple[Guess, ...]
    log_probabilities: torch.Tensor
    milliseconds: float


@dataclass(frozen=True)
class Agreement:
    """
    Attributes:
        same_top1 (`bool`): Whether both name the same class first.
        overlap (`int`): How many classes are in both lists.
        of (`int`): Length of the lists.
        kl (`float`): KL(teacher ‖ student) in nats, at temperature 1.
    """

    same_top1: bool
    overlap: int
    of: int
    kl: float


def predict(classifier: Classifier, image: Image.Image) -> Prediction:
    """
    Args:
        classifier ([`Classifier`]): Student or teacher.
        image (`PIL.Image.Image`): In the mode RGB, of any size.
    """
    logits, milliseconds = classifier.logits(image)
    scores = logits.double().log_softmax(dim=0)
    values, indices = scores.exp().topk(min(TOP, len(scores)))
    names = classifier.model.config.id2label
    top = tuple(
        Guess(index, str(names.get(index, f"class {index}")), value)
        for index, value in zip(indices.tolist(), values.tolist(), strict=True)
    )
    return Prediction(top, scores, milliseconds)


def agree(student: Prediction, teacher: Prediction) -> Agreement:
    """How far two predictions over the same classes agree."""
    ours, theirs = ({guess.number for guess in prediction.top} for prediction in (student, teacher))
    p = teacher.log_probabilities
    terms = p.exp() * (p - student.log_probabilities)
    # A probability that is zero in double precision adds nothing, although its logarithm is -inf.
    kl = float(torch.where(p.exp() > 0, terms, 0).sum())
    return Agreement(student.top[0].number == teacher.top[0].number, len(ours & theirs), len(ours), max(kl, 0.0))


def why_not_comparable(student: Classifier, teacher: Classifier) -> str | None:
    """Why the two cannot be compared class by class; `None` where they can."""
    try:
        check_label_maps(student.model, teacher.model)
    except ValueError:
        ours, theirs = student.model.config, teacher.model.config
        counts = f"{ours.num_labels} and {theirs.num_labels} classes"
        reason = counts if ours.num_labels != theirs.num_labels else "classes with other names or in another order"
        return f"Student and teacher are not compared: they have {reason}."
    return None


def choose_teacher(student: str, typed: str | None, folders: frozenset[str]) -> tuple[Classifier | None, str]:
    """
    The teacher to show beside a student, and what is to be said about the choice.

    Args:
        student (`str`): As [`resolve`] returns it.
        typed (`str`, *optional*): What the visitor chose; if nothing, the student's training record is asked.
        folders (`frozenset[str]`): Those that may be opened.

    Raises:
        DemoError: The teacher that was typed cannot be used. One that is only recorded is done without.
    """
    if typed and typed.strip():
        return load_classifier(resolve(typed, folders)), ""
    try:
        recorded = recorded_teacher(student)
        if recorded is None:
            return None, "No teacher is chosen, and the student's training record names none."
        if "/" not in recorded:
            return None, f"The student learned from {recorded!r}, which is no Hub id. Give its id to see both."
        # Anybody may have written the record, and it gets no further than what visitors type.
        name = recorded if student in folders and is_beside(student, recorded) else resolve(recorded, folders)
        return load_classifier(name), "The teacher is the one that the student's training record names."
    except DemoError as error:
        return None, f"The teacher of the student's training record is not shown. {error}"
