"""
How the cost of a step grows: with the batch, the classes, the size of the embedding, and the processes.

    python benchmarks/growth.py --output growth.json --plot growth.png

Every point is a process of its own, so that its memory is its own. Batch: a step of TH-KD, resnet32x4 to resnet8x4, as
the trainer takes it. Classes and embedding: ArcFace's cross-entropy and the KL through a frozen head, forward and
backward, of logits that are held and in chunks of classes. Processes: the same two losses with the classes split over
the processes (gloo, or one accelerator each), of one batch that they share. The slope of a segment is the exponent with
which it grows: 0 is free, 1 is in proportion. Memory is what a step needs beside the weights, the gradients with it.
Logits are not held of a million classes: that takes ten times what it takes of a hundred thousand, beside 4 GB of class
centers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from growth_plot import draw
from harness import ALLOCATOR, parser
from harness_memory import accelerator_runs, memory_of
from harness_table import add_table, machine
from steps import TrainerStep, make_batches, network, settle
from torch import distributed, nn

from headshare_hf.losses import (
    chunked_cross_entropy,
    chunked_kd,
    cross_entropy,
    kd_loss,
    sharded_cross_entropy,
    sharded_kd,
)
from headshare_hf.models.heads import create_head


IMAGES, WIDTH, CLASSES, SCALE = 64, 512, 93_431, 64.0
SWEEPS: dict[str, dict[str, list[int]]] = {
    "batch": {"step": [16, 32, 64, 128, 256]},
    "classes": {
        "held": [1000, 10_000, 100_000],
        "chunks": [1000, 10_000, 100_000, 1_000_000],
    },
    "embedding": {"held": [128, 256, 512, 1024], "chunks": [128, 256, 512, 1024]},
    "processes": {"split": [1, 2]},
}
QUICK: dict[str, dict[str, list[int]]] = {
    "batch": {"step": [2, 4]},
    "classes": {"held": [50, 100], "chunks": [50, 100]},
    "embedding": {"held": [8, 16], "chunks": [8, 16]},
    "processes": {"split": [1, 2]},
}
LABELS = {
    "batch": "images a step",
    "classes": f"classes ({IMAGES} images, {WIDTH} dimensions)",
    "embedding": f"dimensions of the embedding ({IMAGES} images, {CLASSES:,} classes)",
    "processes": f"processes ({IMAGES} images in all, {CLASSES:,} classes)",
}


def batch_step(batch_size: int, quick: bool, device: str) -> Callable[[], Any]:
    """TH-KD of two networks."""
    names = ("resnet14", "resnet8") if quick else ("resnet32x4", "resnet8x4")
    batches = make_batches(1, batch_size, 100, 32, device)
    step = TrainerStep(
        network(names[1], 100, seed=1), settle(network(names[0], 100, seed=2), 32), batches, method="th_kd"
    )
    return lambda: step.run(1)


def head_step(form: str, classes: int, width: int, device: str, processes: int = 1) -> Callable[[], Any]:
    """Both losses over many classes, of the images of this process."""
    torch.manual_seed(0)
    rank = distributed.get_rank() if processes > 1 else 0
    device = device if device == "cpu" else f"{torch.device(device).type}:{rank}"
    labels, count = torch.randint(classes, (IMAGES,)).to(device), IMAGES // processes
    student, teacher = (torch.randn(IMAGES, width).to(device) for _ in range(2))
    own, split = slice(rank * count, (rank + 1) * count), -(-classes // processes)
    rows = min(split, classes - rank * split)
    head, frozen = (create_head("arcface", width, rows, SCALE, 0.5).to(device) for _ in range(2))
    frozen.requires_grad_(False)
    losses = _losses(form, head, frozen, rank * split)

    def run() -> None:
        embeddings = student[own].clone().requires_grad_()
        for loss in losses(embeddings, labels[own], teacher[own]):
            loss.backward()
        # Not before the next one: then the gradient of the class centers would be held already where memory is counted.
        head.weight.grad = None

    return run


def _losses(form: str, head: nn.Module, frozen: nn.Module, start: int) -> Callable[..., tuple[torch.Tensor, ...]]:
    def held(student: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, ...]:
        margins = cross_entropy(head.margin_logits(head(student), labels, student), labels)
        with torch.no_grad():
            target = frozen(teacher)
        return margins, kd_loss(frozen(student), target, 4.0)

    def chunks(student: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return chunked_cross_entropy(student, labels, head), chunked_kd(student, frozen, teacher, frozen, 4.0)

    def split(student: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, ...]:
        margins = sharded_cross_entropy(student, labels, head, start)
        return margins, sharded_kd(student, frozen, teacher, frozen, 4.0)

    return {"held": held, "chunks": chunks, "split": split if distributed.is_initialized() else chunks}[form]


def measure(sweep: str, form: str, value: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds, of the median and the extreme rounds, and MB of one point, in this process."""
    quick, device = arguments.quick, arguments.device
    classes, width = (60, 16) if quick else (CLASSES, WIDTH)
    if sweep == "processes" and value > 1:
        distributed.init_process_group("gloo" if device == "cpu" else None)
    run = {
        "batch": lambda: batch_step(value, quick, device),
        "classes": lambda: head_step(form, value, width, device),
        "embedding": lambda: head_step(form, classes, value, device),
        "processes": lambda: head_step(form, classes, width, device, value),
    }[sweep]()
    run()
    seconds = [timed(run) for _ in range(arguments.rounds)]
    extremes = {"fastest": min(seconds), "slowest": max(seconds)}
    return {"value": value, "seconds": statistics.median(seconds), **extremes, "megabytes": memory_of(run, warmup=0)}


def _part() -> None:
    """Ends the group of processes while all of them are there: gloo aborts one whose neighbour has left already."""
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    run()
    if accelerator_runs():
        torch.accelerator.synchronize()
    return time.perf_counter() - started


def sweeps(arguments: argparse.Namespace) -> dict[str, dict[str, list[int]]]:
    """What is measured; no more processes than there are accelerators, where these are used."""
    found = QUICK if arguments.quick else SWEEPS
    if arguments.device == "cpu":
        return found
    processes = [count for count in found["processes"]["split"] if count <= torch.accelerator.device_count()]
    return {**found, "processes": {"split": processes}}


def point(sweep: str, form: str, value: int, arguments: argparse.Namespace) -> dict[str, float]:
    """The same in processes of its own; one thread each, so that processes are compared and not threads."""
    processes = value if sweep == "processes" else 1
    threads = "1" if sweep == "processes" else str(arguments.threads or machine(arguments.device)["cores"])
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += [__file__, "--point", sweep, form, str(value), "--rounds", str(arguments.rounds)]
    command += ["--device", arguments.device]
    command += ["--quick"] * arguments.quick
    environment = {**os.environ, **ALLOCATOR, "OMP_NUM_THREADS": threads}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{sweep} {form} {value} failed:\n{done.stderr[-8000:]}")
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    print(
        f"{sweep:10s} {form:7s} {value:>9,} {found['seconds'] * 1e3:10.1f} ms {found['megabytes']:9.0f} MB", flush=True
    )
    return found


def main() -> None:
    """All points, the file and the picture."""
    options = parser(__doc__)
    options.set_defaults(rounds=3)
    options.add_argument("--plot", type=Path, help="PNG file to draw")
    options.add_argument("--point", nargs=3, metavar=("SWEEP", "FORM", "VALUE"), help="measure one point and print it")
    arguments = options.parse_args()
    if arguments.point:
        sweep, form, value = arguments.point
        found = measure(sweep, form, int(value), arguments)
        if not distributed.is_initialized() or distributed.get_rank() == 0:
            print(json.dumps(found), flush=True)
        _part()
        return
    if arguments.quick:
        arguments.rounds = 1
    curves = {
        sweep: {form: [point(sweep, form, value, arguments) for value in values] for form, values in forms.items()}
        for sweep, forms in sweeps(arguments).items()
    }
    sizes = {"images": IMAGES, "width": WIDTH, "classes": CLASSES}
    facts = {"curves": curves, "sizes": sizes, "quick": arguments.quick, "machine": machine(arguments.device)}
    add_table(arguments.output, "growth", facts)
    if arguments.plot:
        draw(curves, LABELS, arguments.plot)


if __name__ == "__main__":
    main()
