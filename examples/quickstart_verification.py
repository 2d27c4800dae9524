"""
Open-set verification on a laptop: are these two drawings the same character, of an alphabet that was never trained on?

    python examples/quickstart_verification.py --config examples/configs/quickstart_verification.yaml --output outputs/verification

Trains a teacher, a student alone, and the student with TH-KD; scores all of them on pairs of classes that were held
out; prints TAR at FAR, draws the ROC curves, and verifies two images with the best student, reloaded without its class
centers. Run it again and it goes on where it was. `--all` adds KD, the embedding distance and SH-KD, `--seeds 3` error
bars, and the recipe may be one of faces.
"""

import argparse
import io
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from PIL import Image
from transformers import pipeline
from transformers.utils import logging

from headshare_hf import HeadShareModel
from headshare_hf.data import VerificationSet, shared_identities, write_verification_bin
from headshare_hf.data.verification_bin import check_bin_folds
from headshare_hf.evaluation import Roc, VerificationResult, Verifier, plot_det, plot_roc
from headshare_hf.evaluation.run import run_verification
from headshare_hf.evaluation.run_options import VerificationOptions
from headshare_hf.evaluation.thresholds import check_can_calibrate
from headshare_hf.trainer import METHODS
from headshare_hf.trainer.card import write_card
from headshare_hf.trainer.config_checks import unread_options
from headshare_hf.trainer.recipe import build_data, run_recipe
from headshare_hf.trainer.recipe_arguments import parse_recipe
from headshare_hf.trainer.recipe_sections import ModelArguments, Recipe, StudentHeadArguments


METRICS = ("accuracy", "auc", "eer", "tar@far=1e-2/at_most", "tar@far=1e-3/at_most")
# Each run has a method of its own; the recipe is read with one to which the options of all of them may be given.
READ_WITH = ("--training.method", "th_kde")


@dataclass
class Table:
    """
    What was measured.

    Attributes:
        rows (`dict`): By set and method, the values of each metric, one a seed.
        rocs (`dict`): By set, the ROC curve of each method of the last seed.
        cells (`dict[str, Recipe]`): By method, the recipe of the last seed.
        folders (`dict[str, str]`): Likewise, its folder.
    """

    rows: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    rocs: dict[str, dict[str, Roc]] = field(default_factory=dict)
    cells: dict[str, Recipe] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)

    def add(self, method: str, results: dict[str, VerificationResult]) -> None:
        """Takes in what one run reached on every set."""
        for name, result in results.items():
            row = self.rows.setdefault(name, {}).setdefault(method, {})
            for metric in METRICS:
                value = result.metrics().get(metric)
                if value is not None:
                    row.setdefault(metric, []).append(value)
            self.rocs.setdefault(name, {})[method] = result.roc


def plan(recipe: Recipe, output: Path, every_method: bool) -> dict[str, Recipe]:
    """Every row of the table, and the recipe of its run."""
    network, trained = recipe.teacher, ModelArguments(name_or_path=str(output / "teacher"))
    if network is None or network.backbone is None:
        raise SystemExit("the recipe needs a section `teacher` with the `backbone` to train as teacher")

    def run(folder: str, method: str, changes: dict[str, Any] | None = None, **sections: Any) -> Recipe:
        given = {**unread_options(METHODS[method]), **(changes or {})}
        training = replace(recipe.training, method=method, output_dir=str(output / folder), **given)
        return replace(recipe, training=training, **{"teacher": None, **sections})

    # The same weights for every method with a KL part, so that they differ in what they share alone.
    same = {"ce_weight": METHODS["th_kd_coupled"].ce, "kd_weight": METHODS["th_kd_coupled"].kd}
    runs = {
        "teacher": run("teacher", "plain", student=network),
        "student alone": run("alone", "plain"),
        "TH-KD": run("th_kd", "th_kd_coupled", teacher=trained),
    }
    if every_method:
        runs["embedding distance"] = run("embedding", "embedding", teacher=trained)
        runs["KD"] = run("kd", "kd", same, teacher=trained)
        # The student with the teacher's head is the temporary one, so that two of the three runs are left.
        chain = {"shared_teacher": network, "sh_kd": StudentHeadArguments(temporary_student=str(output / "th_kd"))}
        runs["SH-KD"] = run("sh_kd", "sh_kd", {**same, "student_head": "teacher_frozen"}, **chain)
    return runs


def load_pairs(recipe: Recipe) -> Verifier:
    """The sets of pairs. Refuses those of classes that are trained on: the result would say nothing of strangers."""
    data = build_data(recipe.data, recipe.training.seed, recipe.verification)
    if data.verifier is None:
        raise SystemExit("the recipe needs a section `verification`")
    for pairs in data.verifier.sets:
        shared = shared_identities(data.label_names, pairs.names or [])
        if shared:
            raise SystemExit(
                f"{len(shared)} classes of {pairs.name} are trained on, e.g. {shared[0]}; hold them out with "
                "`data.held_out_classes`"
            )
    # The last step calibrates on the first set, which hours of training should not be spent to find impossible.
    check_can_calibrate(data.verifier.sets[0])
    check_bin_folds(data.verifier.sets[0])
    return data.verifier


def run_all(recipe: Recipe, output: Path, every_method: bool, verifier: Verifier, table: Table) -> None:
    """Makes every run of one seed, and adds what it reached to the table."""
    for name, cell in plan(recipe, output, every_method).items():
        print(f"== {name}, seed {recipe.training.seed}", flush=True)
        trainer, results = run_recipe(cell)
        write_card(trainer, cell, results)
        table.add(name, verifier(HeadShareModel.from_pretrained(trainer.folder)))
        table.cells[name], table.folders[name] = cell, str(trainer.folder)


def report(output: Path, table: Table, seeds: int) -> None:
    """Prints the table and writes it, as JSON and as pictures."""
    for name, rows in table.rows.items():
        print(
            f"\n{name}, {seeds} seed{'s' if seeds > 1 else ''}, per cent" + (" ± standard error" if seeds > 1 else "")
        )
        print(f"{'':<20}" + "".join(f"{metric:>24}" for metric in METRICS))
        for method, row in rows.items():
            print(f"{method:<20}" + "".join(f"{_cell(row.get(metric, [])):>24}" for metric in METRICS))
        print(f"Curves of the last seed: {plot_roc(table.rocs[name], output / f'{name}_roc.png')}, ", end="")
        print(plot_det(table.rocs[name], output / f"{name}_det.png"))
    (output / "results.json").write_text(json.dumps({"seeds": seeds, "sets": table.rows}, indent=2) + "\n")


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    error = f" ± {100 * stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{error}"


def verify_two(folder: str, pairs: VerificationSet, output: Path, flip: bool) -> None:
    """Calibrates thresholds, stores them with the model, and verifies a pair of each kind with the reloaded model."""
    file = write_verification_bin(output / f"{pairs.name}.bin", pairs)
    run_verification(
        VerificationOptions(
            Path(folder) / "calibration", model=folder, pairs=[str(file)], flip=flip, store_thresholds=True
        )
    )
    verify = pipeline("face-verification", model=folder)
    for pair in (int(pairs.is_same.argmax()), int(pairs.is_same.argmin())):
        images = [_image(pairs, index[pair]) for index in (pairs.index_a, pairs.index_b)]
        found = verify(images[0], images[1], far=1e-2)
        kind = "the same" if pairs.is_same[pair] else "two"
        print(f"  pair {pair} ({kind}): similarity {found['similarity']:.3f}, same at FAR 1e-2: {found['is_same']}")


def _image(pairs: VerificationSet, index: int) -> Image.Image:
    entry = pairs.images[index]
    return Image.open(entry["path"] if entry["bytes"] is None else io.BytesIO(entry["bytes"])).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="examples/configs/quickstart_verification.yaml", help="recipe of all runs")
    parser.add_argument("--output", type=Path, default=Path("outputs/verification"), help="folder of all runs")
    parser.add_argument("--seeds", type=int, default=1, help="how many times everything is run, with other seeds")
    parser.add_argument("--all", action="store_true", help="also KD, the embedding distance and SH-KD")
    options, overrides = parser.parse_known_args()
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    logging.disable_progress_bar()
    recipe = parse_recipe(["--config", options.config, *overrides, *READ_WITH])
    started, table, verifier = time.monotonic(), Table(), load_pairs(recipe)
    for seed in range(recipe.training.seed, recipe.training.seed + options.seeds):
        cell = replace(recipe, training=replace(recipe.training, seed=seed))
        run_all(cell, options.output / f"seed_{seed}", options.all, verifier, table)
    report(options.output, table, options.seeds)
    pairs = verifier.sets[0]
    rows = table.rows[pairs.name]
    best = max((name for name in rows if name != "teacher"), key=lambda name: mean(rows[name]["auc"]))
    print(f"{time.monotonic() - started:.0f} s")
    print(f"\nThe best student ({best}) is in {table.folders[best]}, with its model card. Reloaded, it says:")
    verify_two(table.folders[best], pairs, options.output, verifier.flip)
    # Once more, now with the thresholds.
    trainer, results = run_recipe(table.cells[best])
    write_card(trainer, table.cells[best], results)


if __name__ == "__main__":
    main()
