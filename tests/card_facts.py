"""What the card of a classifier says, for tests of cards, and ways to change it."""

import re
from dataclasses import fields, is_dataclass, replace

from headshare_hf.hub import (
    CardDataset,
    CardFields,
    CardMethod,
    CardModel,
    CardResult,
    CardTeacher,
    CardTraining,
    render_card,
)
from headshare_hf.losses import LossWeights


RESULT = CardResult("accuracy", 0.7392, "CIFAR-100", "uoft-cs/cifar100", "test", 10_000, 1)
CARD = CardFields(
    model=CardModel(
        name="resnet8x4 on CIFAR-100, TH-KD",
        repo_id="someone/resnet8x4-cifar100-th-kd",
        backbone="resnet8x4",
        embedding_size=256,
        num_parameters=1_233_540,
        num_labels=100,
        image_size=(32, 32),
        channel_order="rgb",
        image_mean=(0.5071, 0.4867, 0.4408),
        image_std=(0.2675, 0.2565, 0.2761),
    ),
    method=CardMethod(
        name="th_kd",
        summary="KL through the student's head, and through the teacher's frozen head",
        weights=LossWeights(ce=1, kd=1.5, teacher_head=0.02),
        temperature=4.0,
        options={"student_head": "teacher_init"},
    ),
    teacher=CardTeacher("someone/resnet32x4-cifar100", "resnet32x4", 7_433_860, False, {"accuracy": 0.7942}),
    dataset=CardDataset("CIFAR-100", "uoft-cs/cifar100", "not stated", {"train": 50_000, "test": 10_000}),
    results=(RESULT, replace(RESULT, metric="top5_accuracy", value=0.9312)),
    training=CardTraining(
        epochs=240,
        batch_size=64,
        learning_rate=0.05,
        optimizer="SGD, momentum 0.9, weight decay 5e-4",
        schedule="divided by 10 after epochs 150, 180 and 210",
        augmentation="crop with 4 pixels of padding, horizontal flip",
        seed=17,
        precision="float32",
        hardware="2 CPU cores",
        wall_seconds=7260.0,
        versions={"torch": "2.15.0", "transformers": "5.23.0"},
    ),
    license="apache-2.0",
    tags=("cifar-100",),
)
PLAIN = replace(CARD, method=CardMethod("plain", "Labels alone", LossWeights(ce=1)), teacher=None)


def changed(card, path, value):
    """`card` with the field at a dotted path replaced."""
    name, _, rest = path.partition(".")
    return replace(card, **{name: changed(getattr(card, name), rest, value) if rest else value})


def text(card):
    """The text of a card in one line, so that breaks do not matter."""
    return re.sub(r"\s+", " ", render_card(card).text)


def paths(value, prefix=""):
    """Every field of a card as (dotted path, whether it may be empty)."""
    for entry in fields(value):
        path = f"{prefix}{entry.name}"
        yield path, bool(entry.metadata.get("optional"))
        inner = getattr(value, entry.name)
        if is_dataclass(inner) and not isinstance(inner, LossWeights):
            yield from paths(inner, f"{path}.")


REQUIRED = [path for path, optional in paths(CARD) if not optional]
