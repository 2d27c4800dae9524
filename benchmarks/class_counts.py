"""
From how many classes on losses in chunks are worth it: time and memory against logits that are held.

    python benchmarks/class_counts.py [--classes 100 1000 10000 30000 93431]

The four losses that a training may take of a head, over the number of classes. Both sides are code of this package. The
tables come twice, under the usual settings of glibc and with raised thresholds, see large_head.py.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
from harness import Case, Row, compare, parser, prepare, report, with_usual_allocator
from harness_memory import memory_of
from large_head_cases import CHUNKS, DENSE, SIZE, TEMPERATURE, Setting, step
from torch import nn

from headshare_hf.losses import chunked_cross_entropy, chunked_kd, cross_entropy, kd_loss


CLASSES, BATCHES = (1000, 10_000, 30_000), (64, 256)
COLUMNS = ("control", f"{DENSE}, MB", f"{CHUNKS}, MB")


def losses_of(setting: Setting) -> dict[str, tuple[Callable, Callable, nn.Module]]:
    """The losses of the trainer in both forms, and the head whose gradients have to be taken away before."""
    frozen, linear, arcface = (
        setting.head("linear").requires_grad_(False),
        setting.head("linear"),
        setting.head("arcface"),
    )
    teacher, labels = setting.teacher, setting.labels

    def held_teacher() -> torch.Tensor:
        with torch.no_grad():
            return frozen(teacher)

    return {
        "KL, frozen head": (
            lambda z: kd_loss(frozen(z), held_teacher(), TEMPERATURE),
            lambda z: chunked_kd(z, frozen, teacher, frozen, TEMPERATURE),
            frozen,
        ),
        "KL, own head": (
            lambda z: kd_loss(linear(z), held_teacher(), TEMPERATURE),
            lambda z: chunked_kd(z, linear, teacher, frozen, TEMPERATURE),
            linear,
        ),
        "cross-entropy, linear": (
            lambda z: cross_entropy(linear(z), labels),
            lambda z: chunked_cross_entropy(z, labels, linear),
            linear,
        ),
        "cross-entropy, ArcFace": (
            lambda z: cross_entropy(arcface.margin_logits(arcface(z), labels, z), labels),
            lambda z: chunked_cross_entropy(z, labels, arcface),
            arcface,
        ),
    }


def row_of(setting: Setting, name: str, arguments: argparse.Namespace) -> tuple[Row, dict[str, float]]:
    """Chunks against the form of this package that holds the logits."""
    *forms, head = losses_of(setting)[name]
    weight = head.weight if head.weight.requires_grad else None
    dense, chunks = (lambda loss=loss: step(setting, loss, weight) for loss in forms)
    # Small ones are over at once, and their times would be noise.
    repeats = max(1, 20_000 // len(setting.rows))
    cases = [
        Case(form, lambda run=run: [run() for _ in range(repeats)]) for form, run in ((DENSE, dense), (CHUNKS, chunks))
    ]
    _, row, control = compare(cases, arguments.rounds, per=repeats)
    label = f"{name}, {len(setting.rows)} classes"
    found = (control.ratio, memory_of(dense), memory_of(chunks))
    return replace(row, name=label), dict(zip(COLUMNS, found, strict=True))


def tables(arguments: argparse.Namespace) -> None:
    """All losses over the number of classes."""
    for batch in (8,) if arguments.quick else BATCHES:
        rows, columns = [], {column: {} for column in COLUMNS}
        for classes in (100, 1000) if arguments.quick else arguments.classes:
            setting = Setting(classes, batch, arguments.device)
            for name in losses_of(setting):
                row, memory = row_of(setting, name, arguments)
                rows.append(row)
                for key, value in memory.items():
                    columns[key][row.name] = value
        title = f"Chunks against logits held, {batch} images, {SIZE} dimensions; "
        title += "the usual settings of glibc" if arguments.allocator == "usual" else "raised thresholds of glibc"
        notes = ["ratio: how often logits that are held take as long; control: these against themselves"]
        table = f"class_counts_{batch}_{arguments.allocator}"
        report(table, title, rows, {}, {}, arguments, notes, columns, against=DENSE)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--classes", type=int, nargs="+", default=CLASSES, help="rows of the class matrix")
    options.add_argument("--allocator", choices=("usual", "raised"), help="one of the two; both where not given")
    arguments = options.parse_args()
    if arguments.allocator is None:
        with_usual_allocator()
    arguments.allocator = arguments.allocator or "raised"
    prepare(arguments)
    tables(arguments)


if __name__ == "__main__":
    main()
