"""
A small network gets better by sharing a classifier with a bigger one, on real images and a laptop.

    python examples/quickstart.py --config examples/configs/quickstart.yaml --output outputs/quickstart

Trains a teacher, a student alone, and the student with KD, TH-KD and SH-KD; prints a table, draws it, writes the card of
the best student, and classifies three images with it. Run it again and it goes on where it was.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from PIL import Image

from headshare_hf import HeadShareForImageClassification, HeadShareImageProcessor
from headshare_hf.evaluation import plot_accuracy_bars, plot_training_curves
from headshare_hf.trainer import METHODS, DistillationTrainer
from headshare_hf.trainer.card import write_card
from headshare_hf.trainer.recipe import run_recipe
from headshare_hf.trainer.recipe_arguments import ModelArguments, Recipe, StudentHeadArguments, parse_recipe


TEACHER_BACKBONE = "resnet20"


def plan(recipe: Recipe, output: Path) -> dict[str, Recipe]:
    """Every row of the table, and the recipe of its run."""

    def run(folder: str, method: str, options: dict[str, Any] | None = None, **sections: Any) -> Recipe:
        training = replace(recipe.training, method=method, output_dir=str(output / folder), **(options or {}))
        return replace(recipe, training=training, **sections)

    bigger, teacher = ModelArguments(backbone=TEACHER_BACKBONE), ModelArguments(name_or_path=str(output / "teacher"))
    # The same weights as TH-KD, so that the two differ in the shared classifier alone.
    same_weights = {"ce_weight": METHODS["th_kd_coupled"].ce, "kd_weight": METHODS["th_kd_coupled"].kd}
    # The student of the row before is the temporary one, so that two of the three runs are left.
    chain = {"shared_teacher": bigger, "sh_kd": StudentHeadArguments(temporary_student=str(output / "th_kd"))}
    return {
        "teacher": run("teacher", "plain", student=bigger),
        "student alone": run("alone", "plain"),
        "KD": run("kd", "kd", same_weights, teacher=teacher),
        "TH-KD": run("th_kd", "th_kd_coupled", teacher=teacher),
        "SH-KD": run("sh_kd", "sh_kd", **chain),
    }


def learning_curve(trainer: DistillationTrainer) -> list[tuple[float, float]]:
    """Test accuracy after every epoch."""
    return [(row["epoch"], row["eval_accuracy"]) for row in trainer.state.log_history if "eval_accuracy" in row]


def classify_three(folder: str, data: str) -> None:
    """Reloads a published student and shows what it says about three test images."""
    model = HeadShareForImageClassification.from_pretrained(folder).eval()
    processor = HeadShareImageProcessor.from_pretrained(folder)
    test = load_dataset(data, split="test")
    for row in (0, 1, 2):
        image: Image.Image = test[row]["image"].convert("RGB")
        with torch.no_grad():
            probabilities = model(**processor(image, return_tensors="pt")).logits.softmax(dim=1)[0]
        best = int(probabilities.argmax())
        truth = test.features["label"].int2str(test[row]["label"])
        print(f"  image {row}: {model.config.id2label[best]} ({probabilities[best]:.0%}), truth: {truth}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="examples/configs/quickstart.yaml", help="recipe of all runs")
    parser.add_argument("--output", type=Path, default=Path("outputs/quickstart"), help="folder of all runs")
    options, overrides = parser.parse_known_args()
    recipe = parse_recipe(["--config", options.config, *overrides])
    started, accuracies, curves, folders = time.time(), {}, {}, {}
    for name, cell in plan(recipe, options.output).items():
        print(f"== {name}", flush=True)
        trainer, results = run_recipe(cell)
        write_card(trainer, cell, results)
        accuracies[name], folders[name] = [results["eval_accuracy"]], trainer.args.output_dir
        curves[name] = learning_curve(trainer)
    report(options.output, accuracies, curves, time.time() - started)
    best = max((name for name in accuracies if name != "teacher"), key=lambda name: accuracies[name][0])
    print(f"\nThe best student ({best}) is in {folders[best]}, with its model card. Reloaded, it says:")
    classify_three(folders[best], recipe.data.name)


def report(output: Path, accuracies: dict[str, list[float]], curves: dict[str, Any], seconds: float) -> None:
    """Prints the table and writes it, as JSON and as pictures."""
    print(f"\n{'':<15} top-1 test accuracy, 1 seed")
    for name, values in accuracies.items():
        print(f"{name:<15} {values[0]:7.2%}")
    plots = [plot_accuracy_bars(accuracies, output / "accuracy.png")]
    if all(curves.values()):
        plots.append(plot_training_curves(curves, output / "curves.png"))
    (output / "results.json").write_text(json.dumps({"seeds": 1, "accuracy": accuracies}, indent=2) + "\n")
    print(f"\n{seconds:.0f} s; plots: {', '.join(map(str, plots))}")


if __name__ == "__main__":
    main()
