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
import json
from collections.abc import Callable

import torch
from harness import Case, agree, compare, parser, prepare, report, with_usual_allocator
from harness_memory import memory_of, peak_memory
from large_head_cases import CASES, CHUNKS, DENSE, MOMENTS, ONLINE, SAMPLED, SIZE, Setting, Values, exact
from large_head_kernels import kernel_tables

from headshare_hf.losses import chunked_cross_entropy


MILLION, MILLION_STEP = 1_000_000, "a step"
# What cross-entropy in chunks may need beside the gradient of the centers.
SLACK_MB = 64


OFF = " off float64"


def exact_values(name: str, arguments: argparse.Namespace) -> dict[str, Values]:
    """What every case should give, in float64."""
    setting = Setting(arguments.classes, arguments.batch, arguments.device).double()
    whole = exact(name, DENSE, setting)
    return {case: exact(name, case, setting) if case == SAMPLED else whole for case in CASES[name](setting)}


def checked(
    name: str, cases: dict[str, Callable[[], Values]], arguments: argparse.Namespace
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """How far the loss of every case is off float64, and further columns with loss and gradients."""
    agreement: dict[str, float] = {}
    columns: dict[str, dict[str, float]] = {}
    for case, expected in exact_values(name, arguments).items():
        found = cases[case]()
        for what, value in expected.items():
            off = float((found[what] - value).norm() / value.norm())
            if off > 1e-5:
                raise SystemExit(f"{name}, {case}: the {what} is off float64 by {off:.1e}, more than 1e-5")
            columns.setdefault(what + OFF, {})[case] = off
        agreement[case] = agree(f"loss of {name}, {case}", found["loss"], expected["loss"], 1e-5)
    return agreement, columns


def table(
    name: str,
    title: str,
    targets: dict[str, float],
    arguments: argparse.Namespace,
    notes: list[str],
    megabytes: Callable[[float], dict[str, float]],
) -> None:
    """
    One loss: all its forms, and how far each is off float64.

    Args:
        name, title, targets, arguments, notes: Of the table.
        megabytes (`Callable`): From those of the logits that are held to those that each case may need.
    """
    cases = CASES[name](Setting(arguments.classes, arguments.batch, arguments.device))
    agreement, columns = checked(name, cases, arguments)
    rows = compare([Case(case, run) for case, run in cases.items()], arguments.rounds)
    columns["extra MB"] = memory(name, cases, arguments)
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
        {"extra MB": megabytes(columns["extra MB"][DENSE])},
    )


def memory(name: str, cases: dict[str, Callable[[], object]], arguments: argparse.Namespace) -> dict[str, float]:
    """MB of every case, in a process of their own; the smoke test has no time for that."""
    if arguments.quick:
        return {case: memory_of(run) for case, run in cases.items()}
    options = ["--classes", arguments.classes, "--batch", arguments.batch, "--device", arguments.device]
    options += ["--threads", torch.get_num_threads(), "--allocator", arguments.allocator]
    return peak_memory(__file__, [*options, "--memory-of", name])


def tables(arguments: argparse.Namespace) -> None:
    """Both losses."""
    centers = arguments.classes * SIZE * 4 / 1e6
    table(
        "kl",
        "KL through a frozen head, forward and backward",
        {ONLINE: 1.5, MOMENTS: 2.7},
        arguments,
        [
            f"'{DENSE}' needs 3 products of images, classes and dimensions, '{ONLINE}' 4, '{MOMENTS}' 2; the moments "
            "are made once an image, by 2 products more",
            f"aimed at: at most 1/20 of the extra memory of '{DENSE}'",
        ],
        lambda held: {ONLINE: held / 20, MOMENTS: held / 20},
    )
    table(
        "arcface",
        "ArcFace cross-entropy, class centers learn, forward and backward",
        {CHUNKS: 1.8},
        arguments,
        [
            f"the gradient of the centers alone is {centers:.0f} MB of the memory; aimed at: at most {SLACK_MB} MB more",
            f"'{SAMPLED}' (`class_sample_rate`, Partial FC) is another loss, and is checked against logits that are held of "
            "the same classes",
        ],
        lambda held: {CHUNKS: centers + SLACK_MB},
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
    fresh = {} if arguments.quick else memory("million", {}, arguments)
    run, losses = million_step(arguments)
    rows = compare([Case(MILLION_STEP, run)], min(arguments.rounds, 3), warmup=0)
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


def print_memory(arguments: argparse.Namespace) -> None:
    """Of all cases of a table."""
    if arguments.memory_of == "million":
        cases = {MILLION_STEP: million_step(arguments)[0]}
    else:
        cases = CASES[arguments.memory_of](Setting(arguments.classes, arguments.batch, arguments.device))
    print(json.dumps({case: memory_of(run) for case, run in cases.items()}))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--classes", type=int, default=93_431, help="rows of the class matrix")
    options.add_argument("--batch", type=int, default=256, help="images of a step")
    options.add_argument("--allocator", choices=("usual", "raised"), help="one of the two; both where not given")
    options.add_argument("--memory-of", choices=(*CASES, "million"), help="print the MB of every case of a table")
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
    if arguments.memory_of:
        print_memory(arguments)
        return
    if arguments.kernels:
        kernel_tables(arguments)
        return
    tables(arguments)
    if arguments.allocator == "raised":
        million_table(arguments)


if __name__ == "__main__":
    main()
