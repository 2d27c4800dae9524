"""
One step of TH-KD or CRD, as the trainer takes it, against the authors' own loop or, without `--reference`, a plain one.

    python benchmarks/training_step.py [--reference CHECKOUT] [--compile]

Two pairs of networks on 32-pixel images in memory, the first of them with CRD too. The losses of the first steps must be
those of the other side: how far each form is off, and may be, is in the column `difference`. With `stored`, the teacher's
embeddings are given, as from a teacher cache. `--compile` adds a form with `torch_compile` to each pair; it needs a C++
compiler.

The authors' loop of CRD gathers a gigabyte of memories at every step, which glibc under its usual settings returns to the
kernel and faults in again. That table comes twice, under the usual settings, which is what a training has, and with raised
thresholds, which leave the arithmetic alone.
"""

import argparse
from typing import Any

import torch
from contrastive_steps import ManyImages, PlainContrastiveStep, started
from harness import Case, agree, compare, parser, prepare, report, use_reference, with_usual_allocator
from reference_steps import ReferenceContrastiveStep, ReferenceStep, reference_pair
from steps import PlainStep, TrainerStep, make_batches, network, settle

from headshare_hf.losses.products import has_bfloat16
from headshare_hf.trainer import METHODS


NUM_LABELS, SIZE, BATCH_SIZE = 100, 32, 64
PAIRS = {"resnet32x4 to resnet8x4": ("resnet32x4", "resnet8x4"), "resnet56 to resnet20": ("resnet56", "resnet20")}
FAST = {"channels_last": True, "fold_teacher": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32, channels_last": {"channels_last": True},
    "float32, folded": {"fold_teacher": True},
    "float32, all switches": FAST,
    "float32, all switches, optimizer not fused": {**FAST, "fused_optimizer": False},
    "bfloat16, all switches": {**FAST, "bf16": True},
    "stored, float32, all switches": {**FAST, "stored": True},
    "stored, bfloat16, all switches": {**FAST, "stored": True, "bf16": True},
}
# Each is compiled anew, which takes half a minute: the forms that gain most.
COMPILED: dict[str, dict[str, dict[str, Any]]] = {
    "resnet32x4 to resnet8x4": {
        "stored, bfloat16, all switches, compiled": {**FAST, "stored": True, "bf16": True, "torch_compile": True}
    },
    "resnet56 to resnet20": {
        "stored, float32, all switches, compiled": {**FAST, "stored": True, "torch_compile": True}
    },
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
# How far the losses of float32 may be off: as the other side writes them, and with switches. Training amplifies the
# rounding of another layout, and that of 56 layers of few channels more.
ALLOWED = {"resnet32x4 to resnet8x4": (1e-5, 1e-5), "resnet56 to resnet20": (1e-5, 1e-3)}
# The loss of CRD in the authors' code is 1e-4 off its value in float64.
ALLOWED_CONTRASTIVE = (5e-4, 5e-4)
# Of bfloat16, and of the convolutions of an accelerator, which round their inputs to TF32.
ALLOWED_BFLOAT16, ALLOWED_TF32 = 2e-2, 1e-3
CONTRASTIVE = {
    name: VARIANTS[name]
    for name in (
        "float32",
        "float32, all switches",
        "bfloat16, all switches",
        "stored, float32, all switches",
        "stored, bfloat16, all switches",
    )
}
CONTRASTIVE_TARGETS = {"float32, all switches": 2.4, "stored, float32, all switches": 5.5}


class Setting:
    """
    One table: two networks, the side that is compared with, and how ours are started.

    Args:
        pair (`str`): Of `PAIRS`.
        method (`str`): `"th_kd"` or `"crd"`.
        arguments (`argparse.Namespace`): Of the command line.
    """

    def __init__(self, pair: str, method: str, arguments: argparse.Namespace) -> None:
        self.count, self.checked, self.batch_size = (1, 2, 8) if arguments.quick else (2, 4, BATCH_SIZE)
        self.arguments, self.method = arguments, method
        self.base_name = "authors' loop" if arguments.reference else "plain loop"
        self.batches = make_batches(self.checked, self.batch_size, NUM_LABELS, SIZE, arguments.device)
        torch.manual_seed(0)
        teacher, student = PAIRS[pair]
        if arguments.reference:
            *self.theirs, self.student, self.teacher = reference_pair(teacher, student, NUM_LABELS, SIZE)
        else:
            self.student = network(student, NUM_LABELS, seed=1)
            self.teacher = settle(network(teacher, NUM_LABELS, seed=2), SIZE)
            self.theirs = [self.student, self.teacher]

    def base(self) -> TrainerStep:
        """What is compared with."""
        kind = ReferenceStep if self.arguments.reference else PlainStep
        return kind(*self.theirs, self.batches, METHODS[self.method])

    def start(self, **fields: Any) -> TrainerStep:
        """A step of ours."""
        return TrainerStep(self.student, self.teacher, self.batches, method=self.method, **fields)

    def losses(self, step: TrainerStep) -> list[float]:
        """Of the first steps of ours."""
        return step.losses(self.checked)

    def allowed(self, variant: str, tolerances: tuple[float, float]) -> float:
        """How far the losses of a variant may be off, relatively."""
        if "bfloat16" in variant:
            return ALLOWED_BFLOAT16
        found = tolerances[variant != "float32"]
        return found if self.arguments.device == "cpu" else max(found, ALLOWED_TF32)

    def run(
        self, table: str, title: str, variants: dict, targets: dict, tolerances: tuple[float, float], *notes: str
    ) -> None:
        """Measures one table."""
        variants, targets, left_out = _measurable(variants, targets, self.arguments.device)
        notes = (*notes, *left_out)
        base = self.base()
        expected = base.losses(self.checked)
        allowed = {variant: self.allowed(variant, tolerances) for variant in variants}
        agreement, cases = {}, [Case(self.base_name, lambda: base.run(self.count))]
        for variant, fields in variants.items():
            step = self.start(**fields)
            agreement[variant] = agree(f"losses of {variant}", self.losses(step), expected, allowed[variant])
            cases.append(Case(variant, lambda step=step: step.run(self.count)))
        rows = compare(cases, self.arguments.rounds, per=self.count)
        title = f"{title}, batch {self.batch_size}, {SIZE} pixels"
        note = f"difference: of the losses of the first {self.checked} steps, in brackets what is let through"
        limits = {"difference": allowed}
        report(table, title, rows, agreement, targets, self.arguments, [note, *notes], limits=limits)


def _measurable(variants: dict, targets: dict, device: str) -> tuple[dict, dict, list[str]]:
    """Without bfloat16 on a processor that only imitates it, which takes seconds a step, and a note that says so."""
    if device != "cpu" or has_bfloat16(torch.device(device)):
        return variants, targets, []
    kept, wanted = ({name: found[name] for name in found if "bfloat16" not in name} for found in (variants, targets))
    note = "PyTorch has no instructions for bfloat16 on this processor: its rows, and their targets, are left out"
    return kept, wanted, [note]


class ContrastiveSetting(Setting):
    """The same with CRD, against memories of all images of a training set."""

    def __init__(self, pair: str, arguments: argparse.Namespace) -> None:
        super().__init__(pair, "crd", arguments)
        self.num_images, self.negatives = (400, 64) if arguments.quick else (50_000, 16_384)
        self.images = ManyImages(self.batches, self.num_images, NUM_LABELS)
        self.given = self.images.with_negatives(self.batches, self.negatives)

    def base(self) -> TrainerStep:
        """See [`Setting`]."""
        ours = started(self.start(), self.student, self.teacher, self.given[0])
        kind = ReferenceContrastiveStep if self.arguments.reference else PlainContrastiveStep
        return kind(*self.theirs, self.given, METHODS[self.method], ours)

    def start(self, **fields: Any) -> TrainerStep:
        """See [`Setting`]."""
        return super().start(images=self.images, num_negatives=self.negatives, **fields)

    def losses(self, step: TrainerStep) -> list[float]:
        """With the negatives of the other side."""
        return [float(step.step(batch)) for batch in self.given]


def run_contrastive(pair: str, arguments: argparse.Namespace) -> None:
    """The table of CRD."""
    usual = arguments.allocator == "usual"
    # These steps are long.
    arguments = argparse.Namespace(**{**vars(arguments), "rounds": min(3, arguments.rounds)})
    setting = ContrastiveSetting(pair, arguments)
    title = f"CRD step, {pair}, {setting.negatives} negatives of {setting.num_images} images"
    title += "; the usual settings of glibc" if usual else "; raised thresholds of glibc"
    notes = (
        "both sides draw their negatives within the step: the other one by `numpy.random.choice` for every image, as the "
        "authors' data set, ours as the trainer does by default; the losses are compared with the same negatives",
    )
    table = "step_crd_usual" if usual else "step_crd_raised"
    setting.run(table, title, CONTRASTIVE, CONTRASTIVE_TARGETS, ALLOWED_CONTRASTIVE, *notes)


def run_pair(pair: str, arguments: argparse.Namespace) -> None:
    """One table of TH-KD."""
    # Whether it runs needs no compiler.
    backend = {"torch_compile_backend": "aot_eager"} if arguments.quick else {}
    compiled = {name: {**fields, **backend} for name, fields in COMPILED[pair].items()} if arguments.compile else {}
    table, title = f"step_{PAIRS[pair][1]}", f"TH-KD step, {pair}"
    Setting(pair, "th_kd", arguments).run(table, title, {**VARIANTS, **compiled}, TARGETS[pair], ALLOWED[pair])


def main() -> None:
    """All tables."""
    options = parser(__doc__, rival="reference")
    options.add_argument(
        "--compile", action="store_true", help="also with torch_compile, which takes a minute to start"
    )
    options.add_argument("--only", choices=[*PAIRS, "crd"], help="only this table")
    options.add_argument("--allocator", choices=("usual", "raised"), help="of the table of CRD; both where not given")
    arguments = options.parse_args()
    if arguments.allocator is None and arguments.only in (None, "crd"):
        with_usual_allocator("--only", "crd")
    prepare(arguments)
    if arguments.reference:
        use_reference(arguments.reference)
    for name in [arguments.only] if arguments.only else [*PAIRS, "crd"]:
        if name == "crd":
            run_contrastive(next(iter(PAIRS)), arguments)
        else:
            run_pair(name, arguments)


if __name__ == "__main__":
    main()
