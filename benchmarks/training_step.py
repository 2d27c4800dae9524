"""
One step of TH-KD, as the trainer takes it, against the authors' own loop or, without `--reference`, a plain one.

    python benchmarks/training_step.py [--reference CHECKOUT] [--compile]

Two pairs of networks on 32-pixel images in memory. The losses of the first steps must be those of the other side to
1e-5 in the plain memory layout; how far they drift with each switch is in the column `difference`. With `stored`, the
teacher's embeddings are given, as from a teacher cache.
"""

import argparse
from types import SimpleNamespace
from typing import Any

import torch
from harness import Case, agree, compare, parser, prepare, report, use_reference
from steps import (
    LEARNING_RATE,
    MOMENTUM,
    TEMPERATURE,
    WEIGHT_DECAY,
    PlainStep,
    TrainerStep,
    make_batches,
    network,
    settle,
)

from headshare_hf.hub import convert_state_dict
from headshare_hf.trainer import METHODS


NUM_LABELS, SIZE, BATCH_SIZE = 100, 32, 64
PAIRS = {"resnet32x4 to resnet8x4": ("resnet32x4", "resnet8x4"), "resnet56 to resnet20": ("resnet56", "resnet20")}
FAST = {"channels_last": True, "fold_teacher": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32, channels_last": {"channels_last": True},
    "float32, folded": {"fold_teacher": True},
    "float32, all switches": FAST,
    "bfloat16, all switches": {**FAST, "bf16": True},
    "stored, float32, all switches": {**FAST, "stored": True},
    "stored, bfloat16, all switches": {**FAST, "stored": True, "bf16": True},
}
COMPILED: dict[str, dict[str, Any]] = {
    "float32, all switches, compiled": {**FAST, "torch_compile": True},
    "bfloat16, all switches, compiled": {**FAST, "torch_compile": True, "bf16": True},
    "stored, float32, all switches, compiled": {**FAST, "stored": True, "torch_compile": True},
}
TARGETS = {
    "resnet32x4 to resnet8x4": {
        "float32, all switches": 1.15,
        "bfloat16, all switches": 2.0,
        "stored, float32, all switches": 2.7,
        "stored, bfloat16, all switches": 5.0,
    },
    "resnet56 to resnet20": {"float32, all switches": 1.3, "stored, float32, all switches": 2.3},
}


class ReferenceStep(TrainerStep):
    """Drives the authors' own `train_distill` over batches in memory."""

    def __init__(self, student: Any, teacher: Any, batches: list, weights: Any) -> None:
        from distiller_zoo import DistillKL
        from helper.loops import train_distill
        from kd_teacher_head.kdth import KDTH, ModelTH

        self._train = train_distill
        self.batches = [(batch["pixel_values"], batch["labels"], batch["index"]) for batch in batches]
        device = batches[0]["labels"].device
        with torch.no_grad():
            wrapped = ModelTH(student, teacher)
        self._modules = torch.nn.ModuleList([wrapped, teacher]).to(device)
        self._criteria = torch.nn.ModuleList(
            [torch.nn.CrossEntropyLoss(), DistillKL(TEMPERATURE), KDTH(T=TEMPERATURE)]
        )
        self._optimizer = torch.optim.SGD(
            wrapped.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        self._options = SimpleNamespace(
            distill="kdth", print_freq=100, gamma=weights.ce, alpha=weights.kd, beta=weights.teacher_head
        )

    def run(self, count: int) -> None:
        """See [`TrainerStep`]."""
        self._train(1, self.batches[:count], self._modules, self._criteria, self._optimizer, self._options)

    def losses(self, count: int) -> list[float]:
        """See [`TrainerStep`]."""
        return [float(self._one(batch)) for batch in self.batches[:count]]

    def _one(self, batch: tuple) -> float:
        return self._train(1, [batch], self._modules, self._criteria, self._optimizer, self._options)[1]


def reference_pair(teacher: str, student: str) -> tuple[Any, Any, Any, Any]:
    """The authors' networks, and ours with the same weights: their student and teacher, then ours."""
    from models import model_dict

    theirs = [model_dict[name](num_classes=NUM_LABELS) for name in (student, teacher)]
    settle(theirs[1], SIZE)
    ours = [network(name, NUM_LABELS) for name in (student, teacher)]
    for source, target in zip(theirs, ours, strict=True):
        target.load_state_dict(convert_state_dict(source.state_dict(), target.config))
    return (*theirs, *ours)


def base_step(name: str, batches: list, weights: Any, arguments: argparse.Namespace) -> tuple[Any, Any, Any]:
    """What is compared with, and the student and teacher to start from."""
    torch.manual_seed(0)
    teacher_name, student_name = PAIRS[name]
    if arguments.reference:
        *theirs, student, teacher = reference_pair(teacher_name, student_name)
        return ReferenceStep(*theirs, batches, weights), student, teacher
    student = network(student_name, NUM_LABELS, seed=1)
    teacher = settle(network(teacher_name, NUM_LABELS, seed=2), SIZE)
    return PlainStep(student, teacher, batches, weights), student, teacher


def run_pair(name: str, arguments: argparse.Namespace) -> None:
    """One table."""
    count, checked, batch_size = (1, 2, 8) if arguments.quick else (3, 4, BATCH_SIZE)
    batches = make_batches(max(count, checked), batch_size, NUM_LABELS, SIZE, arguments.device)
    method = METHODS["th_kd"]
    base, student, teacher = base_step(name, batches, method, arguments)
    base_name = "authors' loop" if arguments.reference else "plain loop"
    expected = base.losses(checked)
    agreement, cases = {}, [Case(base_name, lambda: base.run(count))]
    for variant, fields in {**VARIANTS, **(COMPILED if arguments.compile else {})}.items():
        step = TrainerStep(student, teacher, batches, method="th_kd", **fields)
        # Training amplifies the rounding of another layout or precision.
        tolerance = 1e-5 if variant in ("float32",) else 2e-2
        agreement[variant] = agree(f"losses of {variant}", step.losses(checked), expected, tolerance)
        cases.append(Case(variant, lambda step=step: step.run(count)))
    rows = compare(cases, arguments.rounds, per=count)
    title = f"TH-KD step, {name}, batch {batch_size}, {SIZE} pixels"
    note = f"difference: of the losses of the first {checked} steps"
    report(f"step_{PAIRS[name][1]}", title, rows, agreement, TARGETS[name], arguments, [note])


def main() -> None:
    """Both pairs."""
    options = parser(__doc__)
    options.add_argument(
        "--compile", action="store_true", help="also with torch_compile, which takes minutes to start"
    )
    options.add_argument("--pair", choices=list(PAIRS), help="only this one")
    arguments = options.parse_args()
    prepare(arguments)
    if arguments.reference:
        use_reference(arguments.reference)
    for name in [arguments.pair] if arguments.pair else PAIRS:
        run_pair(name, arguments)


if __name__ == "__main__":
    main()
