"""
Writes the cards of runs made here again, from what these runs measured, so that they follow the template.

    python model_cards/make_measured_cards.py

Accuracies and what was measured on pairs are read from docs/results. A run writes its own card; what these files do not
hold is here as the cards of the two runs have it.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from headshare_hf.hub import (
    CardDataset,
    CardFields,
    CardHead,
    CardMethod,
    CardModel,
    CardPairs,
    CardResult,
    CardTeacher,
    CardTraining,
    CardVerification,
    render_card,
)
from headshare_hf.losses import LossWeights
from headshare_hf.trainer import METHODS


FOLDER = Path(__file__).parent
RESULTS = FOLDER.parent / "docs" / "results"
# Of the two runs; the files hold others too.
SEED = 42

DATA = CardDataset("Omniglot, 8 alphabets", "local/omniglot-8alphabets", "MIT", {"train": 3630, "test": 1210})
# Classes that were held out take their images with them.
PART = replace(DATA, splits={"train": 2985, "test": 995})
VERSIONS = {"torch": "2.15.0+cu132", "transformers": "5.23.0", "accelerate": "1.15.0", "timm": "1.0.31"}


def main() -> None:
    for name, card in describe().items():
        render_card(card).save(FOLDER / name)


def describe() -> dict[str, CardFields]:
    """What every card says, by the name of its file."""
    return {
        "resnet8-omniglot-8alphabets-sh-kd.md": _classifier(),
        "mobilefacenet-omniglot-verification-th-kd.md": _verifier(),
    }


def _classifier() -> CardFields:
    """`make quickstart`."""
    found = _stored("omniglot.json")
    around_head = found["other"]["SH-KD teacher (around the frozen head of the TH-KD student)"]
    teacher = {"accuracy": around_head, "top5_accuracy": 0.9909, "mean_per_class_accuracy": around_head}
    return CardFields(
        model=_model("resnet8-omniglot-8alphabets-sh-kd", "resnet8", 64, 93_122, 242),
        method=CardMethod("sh_kd", METHODS["sh_kd"].summary, LossWeights(ce=1, kd=1), 4.0),
        teacher=CardTeacher("2_teacher", "resnet20", 287_554, True, teacher),
        dataset=DATA,
        results=_accuracies(DATA, found["accuracy"]["SH-KD"], 0.98843),
        training=_training(12, 0.1, "sgd, momentum=0.9, weight decay 0.0005", 43.9),
        license="apache-2.0",
    )


def _verifier() -> CardFields:
    """`make quickstart-verification`."""
    model = _model("mobilefacenet-omniglot-8alphabets-th-kd-coupled", "mobilefacenet", 512, 2_138_368, 199)
    weights = LossWeights(ce=0.5, kd=0.75, teacher_head=0.75, teacher_head_ce=0.5)
    method = METHODS["th_kd_coupled"].summary
    teacher = {"accuracy": 0.8663, "top5_accuracy": 0.9869, "mean_per_class_accuracy": 0.8663}
    return CardFields(
        model=replace(model, head=CardHead("cosface", 16.0, (0.1,))),
        method=CardMethod("th_kd_coupled", method, weights, options={"kd_scale": 7.48}),
        teacher=CardTeacher("teacher", "iresnet18", 12_331_008, False, teacher),
        dataset=PART,
        results=_accuracies(PART, 0.859296, 0.986935),
        training=_training(6, 0.001, "adamw_torch, weight decay 0.05", 120.0),
        license="apache-2.0",
        verification=_verification(),
    )


def _verification() -> CardVerification:
    values = _stored("omniglot_verification.json")["verification"]["TH-KD"]
    threshold = {"rule": "at_most", "set": "held_out", "num_impostor": 3000, "flip": False}
    return CardVerification(
        subject="characters",
        preparation="drawings of 105 x 105 pixels as they are",
        flip=False,
        num_embedding_parameters=2_036_480,
        embedding_bytes=8_240_000,
        total_bytes=8_650_000,
        sets=(CardPairs(f"{PART.name}: classes held out", PART.id, 3000, 3000, 10, values, 0.004),),
        thresholds=(
            {"far": 0.01, "similarity": 0.7212, **threshold},
            {"far": 0.001, "similarity": 0.8549, **threshold},
        ),
    )


def _stored(name: str) -> dict[str, Any]:
    """What a file of results holds of the run with the seed of the cards."""
    content = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return _of_run(content, content["seeds"].index(SEED))


def _of_run(content: dict[str, Any], run: int) -> dict[str, Any]:
    """One number in the place of each list, which has one a seed."""
    return {
        key: _of_run(value, run) if isinstance(value, dict) else value[run] if isinstance(value, list) else value
        for key, value in content.items()
    }


def _model(name: str, backbone: str, embedding_size: int, num_parameters: int, num_labels: int) -> CardModel:
    statistics = ((0.9196,) * 3, (0.2252,) * 3)
    return CardModel(
        name, f"your-name/{name}", backbone, embedding_size, num_parameters, num_labels, (32, 32), "rgb", *statistics
    )


def _accuracies(data: CardDataset, top1: float, top5: float) -> tuple[CardResult, ...]:
    """Every class has as many test images as any other, so that the mean over classes is that over images."""
    values = {"accuracy": top1, "top5_accuracy": top5, "mean_per_class_accuracy": top1}
    return tuple(
        CardResult(metric, value, data.name, data.id, "test", data.splits["test"], num_seeds=1)
        for metric, value in values.items()
    )


def _training(epochs: int, learning_rate: float, optimizer: str, seconds: float) -> CardTraining:
    return CardTraining(
        epochs=epochs,
        batch_size=32,
        learning_rate=learning_rate,
        optimizer=optimizer,
        schedule="cosine",
        augmentation="crop_white",
        seed=SEED,
        precision="float32",
        hardware="2 cores of a CPU, 1 process(es)",
        wall_seconds=seconds,
        versions=VERSIONS,
    )


if __name__ == "__main__":
    main()
