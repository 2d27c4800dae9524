"""
Writes the cards of recipes that nobody has run here.

    python model_cards/make_planned_cards.py

What the recipe file says is read from it. Numbers of the paper are those of arXiv 2201.06945, Table 4 of version 2.
"""

import math
from pathlib import Path

import torch

from headshare_hf import HeadShareConfig, HeadShareModel
from headshare_hf.hub import (
    CardHead,
    CardMethod,
    PlannedFields,
    ReportedTable,
    render_planned_card,
)
from headshare_hf.trainer import get_method
from headshare_hf.trainer.card import describe_optimizer, describe_options, describe_schedule
from headshare_hf.trainer.recipe_arguments import parse_recipe
from headshare_hf.trainer.recipe_sections import ModelArguments, Recipe


ROOT = Path(__file__).parents[1]
CONFIG = "examples/configs/faces/ms1mv3_mobilefacenet_sh_kd.yaml"
TARGET = Path(__file__).with_name("mobilefacenet-ms1mv3-ijbc.md")

IDENTITIES, IMAGES, EMBEDDING_SIZE = 93_431, 5_179_510, 512
IJBC_IMAGES, IJBC_TEMPLATES, IJBC_GENUINE, IJBC_IMPOSTOR = 469_375, 23_124, 19_557, 15_638_932

PAPER = ReportedTable(
    source="arXiv 2201.06945, Table 4 of version 2 (TAR on IJB-C in per cent)",
    columns=("method", "network", "TAR at FAR 1e-6", "TAR at FAR 1e-5", "TAR at FAR 1e-4"),
    rows=(
        ("Martinez *", "MobileFaceNet", "–", "92.20", "94.70"),
        ("L2E + ES-sampling *", "MobileFaceNet", "–", "93.20", "95.39"),
        ("L2E + IS-sampling *", "MobileFaceNet", "–", "93.25", "95.49"),
        ("teacher, vanilla", "R100", "91.49", "95.52", "97.00"),
        ("teacher, SH-KD", "R100", "90.88", "95.58", "97.03"),
        ("vanilla student", "MobileFaceNet", "88.72", "92.75", "95.42"),
        ("L2E", "MobileFaceNet", "88.47", "93.49", "95.48"),
        ("TH-KD", "MobileFaceNet", "89.82", "93.50", "95.48"),
        ("SH-KD", "MobileFaceNet", "90.24", "93.73", "95.64"),
    ),
    notes=(
        "`*`: quoted by the paper from two others, a benchmark of lightweight face networks (Martínez-Díaz et al.) and "
        "Liu et al. (ICCVW 2021).",
        "Not known here: the width of its MobileFaceNet, the rule by which TAR was read at a FAR, and whether the rows of "
        "TH-KD and SH-KD include the embedding distance (L2E).",
        "Its vanilla rows lie above what insightface prints for its own models "
        "on the same data (MobileFaceNet 91.33 and 94.23, IResNet-100 95.02 and 96.85 at FAR 1e-5 and 1e-4).",
    ),
)


def main() -> None:
    render_planned_card(describe()).save(TARGET)


def describe() -> PlannedFields:
    """The MobileFaceNet of the paper: SH-KD on MS1MV3, to be measured on IJB-C."""
    recipe = parse_recipe(["--config", str(ROOT / CONFIG), "--training.use_cpu", "true"])
    data, training = recipe.data, recipe.training
    row, weights = get_method(training.method), training.loss_weights
    head = CardHead(recipe.student.head_type, recipe.student.head_scale, (recipe.student.head_margin,))
    return PlannedFields(
        name=TARGET.stem,
        subject=recipe.verification.subject,
        network=_network(recipe),
        head=head,
        method=CardMethod(training.method, row.summary, weights, None, describe_options(training)),
        stages=_stages(recipe),
        training=_settings(recipe),
        settings_source=(
            "The settings are those of insightface's `ms1mv3_mbf` recipe (ArcFace, batch of 128 a GPU, 40 epochs), as far "
            "as it says. The paper's own were not found published: weights of the loss parts, temperature, margin, epochs."
        ),
        data_license=data.license,
        data_notes=(
            "MS1MV3 (`ms1m-retinaface-t1`) is a part of MS-Celeb-1M, photographs of people from the web who were not "
            "asked. Microsoft, its publisher, withdrew MS-Celeb-1M in 2019.",
            "Data sets of that family are given away for non-commercial research alone.",
        ),
        license=data.weights_license,
        commands=(
            f"accelerate launch examples/run_distill.py --config {CONFIG}",
            f"accelerate launch examples/run_verification.py --model {training.output_dir}/3_student --ijbc path/to/IJBC "
            f"--output {training.output_dir}/ijbc",
        ),
        protocol=_protocol(),
        not_measured="neither MS1MV3 nor IJB-C was available",
        reported=PAPER,
    )


def _network(recipe: Recipe) -> dict[str, str]:
    data, parameters = recipe.data, _parameters(recipe.student)
    return {
        "backbone": recipe.student.backbone,
        "embedding": f"{EMBEDDING_SIZE} numbers",
        "embedding network": f"{parameters:,} parameters",
        "with class centers": f"{parameters + IDENTITIES * EMBEDDING_SIZE:,} parameters",
        "identities": f"{IDENTITIES:,}",
        "image size": f"{data.image_size} × {data.image_size} pixels, height × width",
        "images": recipe.verification.preparation,
        "channels": data.channel_order.upper(),
        "mean": ", ".join(map(str, data.mean)),
        "standard deviation": ", ".join(map(str, data.std)),
        "normalization": f"(x − {255 * data.mean[0]:g}) / {255 * data.std[0]:g} of pixels between 0 and 255",
        "teacher": f"{recipe.shared_teacher.backbone}, {_parameters(recipe.shared_teacher):,} parameters",
    }


def _parameters(model: ModelArguments) -> int:
    """Of the embedding network."""
    config = HeadShareConfig(backbone=model.backbone, embedding_size=EMBEDDING_SIZE, image_size=112)
    # Counting needs no memory for 65 million numbers.
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in HeadShareModel(config).parameters())


def _stages(recipe: Recipe) -> tuple[str, ...]:
    own, teacher = f"{recipe.student.backbone}", f"{recipe.shared_teacher.backbone}"
    epochs = f"{recipe.training.num_train_epochs:g} epochs"
    return (
        f"A temporary {own}, {epochs}, method `{recipe.sh_kd.temporary_method}`.",
        f"The teacher, {teacher}, {recipe.sh_kd.teacher_epochs:g} epochs from labels around the frozen class centers of 1.",
        f"A new {own}, {epochs}, method `{recipe.training.method}`, from the teacher of 2.",
    )


def _settings(recipe: Recipe) -> dict[str, str]:
    training = recipe.training
    return {
        "data": f"{recipe.data.title}, {IMAGES:,} images of {IDENTITIES:,} identities",
        "epochs": f"{training.num_train_epochs:g}",
        "batch size": f"{training.per_device_train_batch_size} a process",
        "learning rate": f"{training.learning_rate:g}",
        "schedule": describe_schedule(training),
        "optimizer": describe_optimizer(training),
        "augmentation": recipe.data.augmentation,
        "seed": str(training.seed),
    }


def _protocol() -> tuple[str, ...]:
    best = 0.9564
    error = 100 * math.sqrt(best * (1 - best) / IJBC_GENUINE)
    return (
        f"IJB-C 1:1: {IJBC_IMAGES:,} images, {IJBC_TEMPLATES:,} templates, {IJBC_GENUINE:,} genuine and "
        f"{IJBC_IMPOSTOR:,} impostor pairs.",
        "The embedding of the mirrored image is added, the length of an embedding is kept (`norm`), and images are weighted "
        "by the score of the detector, all three as in insightface's `eval_ijbc.py`.",
        "TAR at a FAR by the rule `nearest`, as that script prints it, and by `at_most` beside it.",
        f"The choice of {IJBC_GENUINE:,} genuine pairs alone gives a TAR of {100 * best:.2f} a standard error of "
        f"{error:.2f} points; a FAR of 1e-6 is {IJBC_IMPOSTOR * 1e-6:.1f} impostor pairs.",
    )


if __name__ == "__main__":
    main()
