"""
Losses over very many classes: time, memory and rounding against the same losses of logits that are held.

    python benchmarks/large_head.py [--classes 93431] [--batch 256] [--kernels]

The softened KL through a frozen head, from the teacher's embedding and from its moments; the cross-entropy with
ArcFace's margin and class centers that learn; and training with a million classes.

Matrices of images times classes exceed what glibc keeps for the next step under its usual settings: they are returned
to the kernel and faulted in again, a cost that belongs to large matrices and that chunks do not have. So the tables
come twice, under the usual settings, which is what a training has, and with raised thresholds, which leave the
arithmetic alone.
"""

import argparse
from collections.abc import Callable

import torch
from harness import (
    Case,
    agree,
    compare,
    memory_of,
    parser,
    peak_memory,
    prepare,
    report,
    with_usual_allocator,
)
from large_head_cases import CASES, CHUNKS, DENSE, MOMENTS, ONLINE, SIZE, Setting, Values
from large_head_kernels import kernel_tables

from headshare_hf.losses import chunked_cross_entropy


MILLION = 1_000_000


def exact_values(name: str, arguments: argparse.Namespace) -> Values:
    """Of the form that holds the logits, in float64."""
    setting = Setting(arguments.classes, arguments.batch, arguments.device).double()
    return CASES[name](setting)[DENSE]()


def table(name: str, title: str, targets: dict[str, float], arguments: argparse.Namespace, notes: list[str]) -> None:
    """One loss: all its forms, and how far each is off float64."""
    exact = exact_values(name, arguments)
    cases = CASES[name](Setting(arguments.classes, arguments.batch, arguments.device))
    agreement, columns = {}, {f"{what} off float64": {} for what in exact}
    for case, run in cases.items():
        found = run()
        for what, value in exact.items():
            columns[f"{what} off float64"][case] = float((found[what] - value).norm() / value.norm())
        agreement[case] = agree(f"loss of {name}, {case}", found["loss"], exact["loss"], 1e-5)
        if any(columns[f"{what} off float64"][case] > 1e-5 for what in exact):
            raise SystemExit(f"{name}, {case}: a gradient is off float64 by more than 1e-5")
    del exact
    rows = compare([Case(case, run) for case, run in cases.items()], arguments.rounds)
    columns["extra MB"] = {case: memory(name, case, run, arguments) for case, run in cases.items()}
    size = f"{arguments.batch} images, {arguments.classes} classes, {SIZE} dimensions, float32"
    settings = "the usual settings of glibc" if arguments.allocator == "usual" else "raised thresholds of glibc"
    report(
        f"large_head_{name}_{arguments.allocator}",
        f"{title}: {size}; {settings}",
        rows,
        agreement,
        targets,
        arguments,
        notes,
        columns,
    )


def memory(name: str, case: str, run: Callable[[], object], arguments: argparse.Namespace) -> float:
    """In a process of its own; the smoke test has no time for that."""
    if arguments.quick:
        return memory_of(run)
    options = ["--classes", arguments.classes, "--batch", arguments.batch, "--device", arguments.device]
    options += ["--threads", torch.get_num_threads(), "--allocator", arguments.allocator]
    return peak_memory(__file__, [*options, "--table", name, "--case", case])


def tables(arguments: argparse.Namespace) -> None:
    """Both losses. The targets are for the usual settings of the allocator."""
    usual = arguments.allocator == "usual"
    table(
        "kl",
        "KL through a frozen head, forward and backward",
        {ONLINE: 1.5, MOMENTS: 2.7} if usual else {},
        arguments,
        [
            f"'{DENSE}' needs 3 products of images, classes and dimensions, '{ONLINE}' 4, '{MOMENTS}' 2; the moments "
            "are made once an image, by 2 products more",
        ],
    )
    table(
        "arcface",
        "ArcFace cross-entropy, class centers learn, forward and backward",
        {CHUNKS: 1.8} if usual else {},
        arguments,
        [f"the gradient of the centers alone is {arguments.classes * SIZE * 4 / 1e6:.0f} MB of the memory"],
    )


def million_step(arguments: argparse.Namespace) -> tuple[Callable[[], float], list[float]]:
    """A training step with very many classes, and the list that it adds its loss to."""
    setting = Setting(1000 if arguments.quick else MILLION, 64, arguments.device)
    head, losses = setting.head("arcface"), []
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0)

    def run() -> float:
        loss = chunked_cross_entropy(setting.student, setting.labels, head)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        return losses[-1]

    return run, losses


def million_table(arguments: argparse.Namespace) -> None:
    """Time and memory; the class centers learn."""
    # Before the same is held here.
    fresh = {} if arguments.quick else {"a step": memory("million", "a step", print, arguments)}
    run, losses = million_step(arguments)
    rows = compare([Case("a step", run)], min(arguments.rounds, 3), warmup=0)
    if not losses[-1] < losses[0]:
        raise SystemExit(f"the loss went from {losses[0]} to {losses[-1]}: nothing is learned")
    classes = 1000 if arguments.quick else MILLION
    weights = (
        f"the centers are {classes * SIZE * 4 / 1e6:.0f} MB, and so is their gradient, which is part of the memory"
    )
    report(
        "large_head_million",
        f"ArcFace, 64 images, {classes} classes, {SIZE} dimensions, float32: forward, backward and SGD",
        rows,
        {},
        {},
        arguments,
        [f"loss {losses[0]:.3f} at the first step, {losses[-1]:.3f} at the last of {len(losses)}", weights],
        {"extra MB": fresh},
    )


def run_once(arguments: argparse.Namespace) -> None:
    """Prints the memory of one case."""
    if arguments.table == "million":
        run, _ = million_step(arguments)
    else:
        run = CASES[arguments.table](Setting(arguments.classes, arguments.batch, arguments.device))[arguments.case]
    print(memory_of(run))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--classes", type=int, default=93_431, help="rows of the class matrix")
    options.add_argument("--batch", type=int, default=256, help="images of a step")
    options.add_argument("--allocator", choices=("usual", "raised"), help="one of the two; both where not given")
    options.add_argument("--table", choices=("kl", "arcface", "million"), help="with --case: of which table")
    options.add_argument("--case", help="print the memory of one variant, in MB")
    options.add_argument(
        "--kernels", action="store_true", help="only whose cross-entropy is fastest; Liger-Kernel on CUDA"
    )
    arguments = options.parse_args()
    if arguments.allocator is None and not arguments.kernels:
        with_usual_allocator()
    arguments.allocator = arguments.allocator or "raised"
    prepare(arguments)
    if arguments.quick:
        arguments.classes, arguments.batch = 2000, 8
    if arguments.case:
        run_once(arguments)
        return
    if arguments.kernels:
        kernel_tables(arguments)
        return
    tables(arguments)
    if arguments.allocator == "raised":
        million_table(arguments)


if __name__ == "__main__":
    main()
