"""
What a training loop costs beside its network: `DistillationTrainer` against a bare loop over the same batches.

    python benchmarks/trainer_overhead.py

Trainings of many steps less trainings of few, on a network of one linear layer, where everything but the loop vanishes,
and on a resnet8; what a training costs once is a column of its own. The lean options are those of a plain loop; the
others log every 10 steps.
"""

import argparse
import copy
import gc
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from harness import Case, Row, agree, compare, parser, prepare, report
from steps import LEARNING_RATE, MOMENTUM, PLAIN, WEIGHT_DECAY, Batches, make_batches, network
from torch import nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils import logging

from headshare_hf import DistillationConfig, DistillationTrainer


NUM_LABELS, BATCH_SIZE = 10, 64
# What the trainer may cost a step beside the linear layer; beside a real network it should not be seen.
TARGET_MS = 0.6
LEAN, OVER = "trainer, lean", "ms over the bare loop"
VARIANTS: dict[str, dict[str, Any]] = {
    LEAN: {},
    "trainer, logs every 10 steps": {"logging_strategy": "steps", "logging_steps": 10},
}


class LinearClassifier(PreTrainedModel):
    """One linear layer on the pixels."""

    config_class = PretrainedConfig
    main_input_name = "pixel_values"

    def __init__(self, size: int) -> None:
        super().__init__(PretrainedConfig(num_labels=NUM_LABELS))
        self.classifier = nn.Linear(3 * size * size, NUM_LABELS)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> ImageClassifierOutput:
        """Logits `(batch_size, NUM_LABELS)`."""
        return ImageClassifierOutput(logits=self.classifier(pixel_values.flatten(1)))


def bare_loop(model: nn.Module, batches: list) -> list[float]:
    """The losses of one training."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)
    losses = []
    for batch in batches:
        loss = F.cross_entropy(model(batch["pixel_values"]).logits, batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


class WithTrainer:
    """The same training by the trainer, in the same order of images. Building the trainer is not measured."""

    def __init__(self, model: nn.Module, batches: list, **fields: Any) -> None:
        self._folder = tempfile.TemporaryDirectory()
        options = {**PLAIN, "num_train_epochs": 1, "train_sampling_strategy": "sequential", **fields}
        args = DistillationConfig(
            output_dir=str(Path(self._folder.name) / "run"),
            use_cpu=batches[0]["labels"].device.type == "cpu",
            # The batches are on the device already.
            dataloader_pin_memory=False,
            per_device_train_batch_size=len(batches[0]["labels"]),
            **options,
        )
        self.trainer = DistillationTrainer(copy.deepcopy(model), args, train_dataset=Batches(batches))

    def run(self) -> list[float]:
        """The logged losses; a later call trains the same network further."""
        shutil.rmtree(self.trainer.folder, ignore_errors=True)
        self.trainer.train()
        return [row["loss"] for row in self.trainer.state.log_history if "loss" in row]


def run_model(
    name: str, model: nn.Module, size: int, steps: int, arguments: argparse.Namespace, limit: float | None
) -> None:
    """
    One table; times are of one step, of the difference of a long training and one of a tenth of its steps.

    Args:
        name, model, size, steps, arguments: Of the table, its network and its long trainings.
        limit (`float`, *optional*): Milliseconds that the trainer may cost; where not given, what is noise.
    """
    batches = make_batches(steps, 8 if arguments.quick else BATCH_SIZE, NUM_LABELS, size, arguments.device)
    model = model.to(arguments.device)
    short = batches[: max(1, steps // 10)]
    checked = WithTrainer(model, batches[:5], logging_strategy="steps", logging_steps=1).run()
    agreement = {LEAN: agree("losses", checked, bare_loop(model, batches[:5]), 1e-4)}
    cases = [Case("bare loop", lambda: bare_loop(model, batches), lambda: bare_loop(model, short))]
    for variant, options in VARIANTS.items():
        long, brief = (WithTrainer(model, part, **options).run for part in (batches, short))
        cases.append(Case(variant, long, brief))
    # What it costs to collect the garbage of all libraries, once a training, scatters more than many steps take.
    gc.collect()
    gc.freeze()
    rows = compare(cases, arguments.rounds, per=len(batches) - len(short))
    gc.unfreeze()
    columns = {
        OVER: {row.name: (row.median_s - rows[0].median_s) * 1e3 for row in rows[1:]},
        "ms once a training": once_a_training(cases, len(short), rows, arguments.rounds),
    }
    notes = [
        f"noise: in a quarter of the rounds two bare loops differ by {noise(rows):.2f} ms or more",
        f"a step: the difference of {len(batches)} steps and {len(short)}, so that what `train()` does once is not in it; "
        "that, most of it one `gc.collect()` of accelerate over all objects, is in the last column",
    ]
    title = f"{name}, a training step of {len(batches[0]['labels'])} images"
    limits = {OVER: {LEAN: noise(rows) if limit is None else limit}}
    report(f"trainer_{name}", title, rows, agreement, {}, arguments, notes, columns, limits)


def noise(rows: list[Row]) -> float:
    """Milliseconds, from the quartiles of the control."""
    base, control = rows[0], rows[-1]
    return max(abs(bound - 1) for bound in (control.ratio_low, control.ratio_high)) * base.median_s * 1e3


def once_a_training(cases: list[Case], steps: int, rows: list[Row], rounds: int) -> dict[str, float]:
    """Milliseconds that the short trainings take beyond their steps."""
    brief = compare([Case(case.name, case.less) for case in cases if case.less is not None], rounds)
    each = {row.name: row.median_s for row in rows}
    return {row.name: (row.median_s - steps * each[row.name]) * 1e3 for row in brief}


def main() -> None:
    """Both networks."""
    options = parser(__doc__)
    options.set_defaults(rounds=5, threads=1)
    arguments = options.parse_args()
    prepare(arguments)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    few, many = (30, 300) if arguments.quick else (60, 1000)
    run_model("linear", LinearClassifier(8), 8, many, arguments, TARGET_MS)
    run_model("resnet8", network("resnet8", NUM_LABELS), 32, few, arguments, None)


if __name__ == "__main__":
    main()
