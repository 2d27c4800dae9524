"""
A small network gets better by sharing a classifier with a bigger one, on real images and a laptop.

    python examples/quickstart.py --config examples/configs/quickstart.yaml --output outputs/quickstart

Trains a teacher, a student alone, and the student with KD, TH-KD and SH-KD; prints a table, draws it, writes the card of
the best student, and classifies three images with it. Run it again and it goes on where it was; `--seeds 3` adds error
bars.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from transformers.utils import logging

from headshare_hf import HeadShareForImageClassification, HeadShareImageProcessor
from headshare_hf.evaluation import plot_accuracy_bars, plot_training_curves
from headshare_hf.trainer import METHODS, last_checkpoint
from headshare_hf.trainer.card import write_card
from headshare_hf.trainer.config_checks import unread_options
from headshare_hf.trainer.recipe import build_data, run_recipe
from headshare_hf.trainer.recipe_arguments import parse_recipe
from headshare_hf.trainer.recipe_sections import ModelArguments, Recipe, StudentHeadArguments


TEACHER_BACKBONE = "resnet20"
# Each run has a method of its own; the recipe is read with one to which the options of all of them may be given.
READ_WITH = ("--training.method", "th_kde")


def plan(recipe: Recipe, output: Path) -> dict[str, Recipe]:
    """Every row of the table, and the recipe of its run."""

    def run(folder: str, method: str, options: dict[str, Any] | None = None, **sections: Any) -> Recipe:
        given = {**unread_options(METHODS[method]), **(options or {})}
        training = replace(recipe.training, method=method, output_dir=str(output / folder), **given)
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


def learning_curve(folder: str) -> list[tuple[float, float]]:
    """Test accuracy after every epoch, from the last checkpoint of a run."""
    checkpoint = last_checkpoint(folder)
    if checkpoint is None:
        return []
    history = json.loads((Path(checkpoint) / "trainer_state.json").read_text())["log_history"]
    return [(row["epoch"], row["eval_accuracy"]) for row in history if "eval_accuracy" in row]


def classify_three(folder: str, recipe: Recipe) -> None:
    """Reloads a published student and shows what it says about three images that it was evaluated on."""
    model = HeadShareForImageClassification.from_pretrained(folder).eval()
    processor = HeadShareImageProcessor.from_pretrained(folder)
    images = build_data(recipe.data, recipe.training.seed).evaluation
    assert images is not None
    for row, (number, image) in enumerate(zip(images.labels[:3].tolist(), images.pictures(range(3)), strict=True)):
        with torch.no_grad():
            probabilities = model(**processor(image, return_tensors="pt")).logits.softmax(dim=1)[0]
        best = int(probabilities.argmax())
        truth = images.label_names[number]
        print(f"  image {row}: {model.config.id2label[best]} ({probabilities[best]:.0%}), truth: {truth}")


def run_all(recipe: Recipe, output: Path, table: dict[str, list[float]]) -> dict[str, str]:
    """Makes every run of one seed, adds its accuracy to the table, and returns the folder of each run."""
    folders = {}
    for name, cell in plan(recipe, output).items():
        print(f"== {name}, seed {recipe.training.seed}", flush=True)
        trainer, results = run_recipe(cell)
        write_card(trainer, cell, results)
        table.setdefault(name, []).append(results["eval_accuracy"])
        folders[name] = str(trainer.folder)
    return folders


def report(output: Path, table: dict[str, list[float]], folders: dict[str, str]) -> None:
    """Prints the table and writes it, as JSON and as pictures."""
    seeds = len(next(iter(table.values())))
    print(f"\n{'':<15} top-1 test accuracy, {seeds} seed{'s' if seeds > 1 else ''}")
    for name, values in table.items():
        error = f" ± {stdev(values) / seeds**0.5:.2%} (standard error)" if seeds > 1 else ""
        print(f"{name:<15} {mean(values):7.2%}{error}")
    plots = [plot_accuracy_bars(table, output / "accuracy.png")]
    curves = {name: learning_curve(folder) for name, folder in folders.items()}
    if all(curves.values()):
        plots.append(plot_training_curves(curves, output / "curves.png"))
    (output / "results.json").write_text(json.dumps({"seeds": seeds, "accuracy": table}, indent=2) + "\n")
    print(f"\nPlots: {', '.join(map(str, plots))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="examples/configs/quickstart.yaml", help="recipe of all runs")
    parser.add_argument("--output", type=Path, default=Path("outputs/quickstart"), help="folder of all runs")
    parser.add_argument("--seeds", type=int, default=1, help="how many times everything is run, with other seeds")
    options, overrides = parser.parse_known_args()
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    # A bar for every small file that is read or written would bury the accuracies.
    logging.disable_progress_bar()
    recipe = parse_recipe(["--config", options.config, *overrides, *READ_WITH])
    started, table, folders = time.monotonic(), {}, {}
    for seed in range(recipe.training.seed, recipe.training.seed + options.seeds):
        cell = replace(recipe, training=replace(recipe.training, seed=seed))
        folders = run_all(cell, options.output / f"seed_{seed}", table)
    report(options.output, table, folders)
    best = max((name for name in table if name != "teacher"), key=lambda name: mean(table[name]))
    print(f"{time.monotonic() - started:.0f} s")
    print(f"\nThe best student ({best}) is in {folders[best]}, with its model card. Reloaded, it says:")
    classify_three(folders[best], recipe)


if __name__ == "__main__":
    main()
