"""
From how many classes on losses in chunks are worth it: time and memory against logits that are held.

    python benchmarks/class_counts.py [--classes 100 1000 10000 93431]

The four losses that a training may take of a head, over the number of classes. Both sides are code of this package. The
tables come twice, under the usual settings of glibc and with raised thresholds, see large_head.py. Where the device has
bfloat16, another one compares the chunks of both precisions.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from harness import Case, Row, agree, compare, parser, prepare, report, with_usual_allocator
from harness_memory import memory_of
from large_head_cases import CHUNKS, DENSE, SIZE, TEMPERATURE, Setting, step
from torch import nn

from headshare_hf.losses import chunked_cross_entropy, chunked_kd, cross_entropy, kd_loss
from headshare_hf.losses.products import has_bfloat16


CLASSES, BATCHES = (1000, 3000, 10_000), (64, 256)
COLUMNS = ("control", f"{DENSE}, MB", f"{CHUNKS}, MB")
# Of loss and gradients, relatively; both sides are rounded.
ALLOWED = 1e-5
# Of factors that are rounded to bfloat16, and the classes of the table that compares the two precisions.
ALLOWED_BFLOAT16, PRECISION_CLASSES = 3e-2, 30_000


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


def row_of(setting: Setting, name: str, arguments: argparse.Namespace) -> tuple[Row, dict[str, float], float]:
    """Chunks against the form of this package that holds the logits, and how far the two are apart."""
    *forms, head = losses_of(setting)[name]
    weight = head.weight if head.weight.requires_grad else None
    dense, chunks = (lambda loss=loss: step(setting, loss, weight) for loss in forms)
    label = f"{name}, {len(setting.rows)} classes"
    values = chunks()
    difference = max(agree(f"{key}, {label}", values[key], value, ALLOWED) for key, value in dense().items())
    del values
    # Small ones are over at once, and their times would be noise.
    repeats = max(1, 10_000 // len(setting.rows))
    cases = [
        Case(form, lambda run=run: [run() for _ in range(repeats)]) for form, run in ((DENSE, dense), (CHUNKS, chunks))
    ]
    _, row, control = compare(cases, arguments.rounds, per=repeats)
    found = (control.ratio, memory_of(dense), memory_of(chunks))
    return replace(row, name=label), dict(zip(COLUMNS, found, strict=True)), difference


def tables(arguments: argparse.Namespace) -> None:
    """All losses over the number of classes."""
    for batch in (8,) if arguments.quick else BATCHES:
        rows, columns, agreement = [], {column: {} for column in COLUMNS}, {}
        for classes in (100, 1000) if arguments.quick else arguments.classes:
            setting = Setting(classes, batch, arguments.device)
            for name in losses_of(setting):
                row, memory, difference = row_of(setting, name, arguments)
                rows.append(row)
                agreement[row.name] = difference
                for key, value in memory.items():
                    columns[key][row.name] = value
        title = f"Chunks against logits held, {batch} images, {SIZE} dimensions; "
        title += "the usual settings of glibc" if arguments.allocator == "usual" else "raised thresholds of glibc"
        notes = ["ratio: how often logits that are held take as long; control: these against themselves"]
        table = f"class_counts_{batch}_{arguments.allocator}"
        limits = {"difference": dict.fromkeys(agreement, ALLOWED)}
        report(table, title, rows, agreement, {}, arguments, notes, columns, limits, against=DENSE)


def precisions(arguments: argparse.Namespace) -> None:
    """The chunks of a training in bfloat16 against those of one in float32."""
    classes, batch = (1000, 8) if arguments.quick else (PRECISION_CLASSES, max(BATCHES))
    setting, rows, agreement = Setting(classes, batch, arguments.device), [], {}
    for name, (_, chunks, head) in losses_of(setting).items():
        weight = head.weight if head.weight.requires_grad else None
        full = partial(step, setting, chunks, weight)
        mixed = torch.autocast(torch.device(arguments.device).type, dtype=torch.bfloat16)(full)
        expected, found = full(), mixed()
        agreement[name] = max(agree(f"{key}, {name}", found[key], expected[key], ALLOWED_BFLOAT16) for key in found)
        _, row, _ = compare([Case("float32", full), Case("bfloat16", mixed)], arguments.rounds)
        rows.append(replace(row, name=name))
    title = f"Chunks in bfloat16 against chunks in float32, {batch} images, {classes} classes, {SIZE} dimensions"
    limits = {"difference": dict.fromkeys(agreement, ALLOWED_BFLOAT16)}
    notes = ["ratio: how often chunks in float32 take as long; difference: of the loss and of gradients, relatively"]
    report("chunk_precisions", title, rows, agreement, {}, arguments, notes, limits=limits, against="float32")


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
    if arguments.allocator == "raised" and has_bfloat16(torch.device(arguments.device)):
        precisions(arguments)


if __name__ == "__main__":
    main()
