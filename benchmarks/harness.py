"""
What all benchmarks share: both sides measured in turn in one process, an A/A control, a check of the numbers, one table.

A script reads like this:

    arguments = parser(__doc__).parse_args()
    prepare(arguments)
    agreement = {"ours": agree("loss", ours(), plain(), 1e-5)}
    rows = compare([Case("plain", plain), Case("ours", ours)], arguments.rounds)
    report("name", "Title", rows, agreement, {"ours": 1.5}, arguments)

Variants run round by round, so that a slow spell of a shared machine hits all of them; a ratio is taken within a round,
and its median and quartiles over the rounds are shown. The first variant runs twice a round, the second time as the
control: what its ratio differs from 1 by is noise, and so are such differences elsewhere.
"""

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from harness_memory import accelerator_runs
from harness_table import add_table, as_text, machine


# Under the usual thresholds of glibc large buffers go back to the kernel after each use and are faulted in again, which
# can outweigh what is compared here, and hits the sides unequally.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(8 << 30)}
# Code of others that some scripts take from a checkout, and that is never part of this repository.
RIVALS = {"reference": "the authors' code", "insightface": "insightface"}


@dataclass
class Case:
    """
    One side of a comparison.

    Attributes:
        name (`str`): Its row in the table.
        run (`Callable`): What is timed; its result is not looked at.
        less (`Callable`, *optional*): A smaller run, whose time is taken off, and with it all that does not grow.
    """

    name: str
    run: Callable[[], Any]
    less: Callable[[], Any] | None = None


@dataclass
class Row:
    """
    Times of one case, in seconds, and how much faster than the first case it is.

    Attributes:
        ratio (`float`): Median over the rounds of the base's wall time divided by this one's.
        ratio_low, ratio_high (`float`): Quartiles of the same.
        cpu_ratio (`float`): Median of the same for processor time, which others on the machine disturb less.
    """

    name: str
    median_s: float
    min_s: float
    max_s: float
    ratio: float
    ratio_low: float
    ratio_high: float
    cpu_ratio: float


def parser(description: str | None, rival: str | None = None) -> argparse.ArgumentParser:
    """The options of every benchmark; a script adds its own, and one that compares with a checkout names a [`RIVALS`]."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--rounds", type=int, default=7, help="how often every variant is measured")
    found.add_argument("--threads", type=int, help="threads of PyTorch; all cores where not given")
    found.add_argument("--device", default=_accelerator(), help="cpu, cuda, ...; an accelerator where there is one")
    if rival is not None:
        found.add_argument(f"--{rival}", type=Path, help=f"checkout of {RIVALS[rival]} to compare with")
    found.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not how fast")
    found.add_argument("--output", type=Path, help="JSON file that the tables are added to")
    return found


def prepare(arguments: argparse.Namespace) -> None:
    """
    Sets the threads, and starts the script anew where the allocator has other thresholds than [`ALLOCATOR`], unless
    `arguments.allocator` is `"usual"`.
    """
    wanted = getattr(arguments, "allocator", None) != "usual"
    if wanted and any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **ALLOCATOR})
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.quick:
        arguments.rounds = 1


def with_usual_allocator(*options: str) -> None:
    """
    Runs a script again with `--allocator usual` and `options`, before [`prepare`] starts it anew and not after that.

    Raises:
        SystemExit: That run failed.
    """
    if any(name in os.environ for name in ALLOCATOR):
        return
    if subprocess.run([sys.executable, *sys.orig_argv[1:], *options, "--allocator", "usual"]).returncode:
        raise SystemExit("the run under the usual settings of the allocator failed")


def use_reference(checkout: Path) -> None:
    """
    Makes a checkout of the authors' code importable, on a CPU too.

    Raises:
        SystemExit: It is not such a checkout.
    """
    if not (checkout / "helper" / "loops.py").exists():
        raise SystemExit(f"{checkout} is no checkout of the authors' code (it has no helper/loops.py)")
    sys.path.insert(0, str(checkout))
    if not torch.cuda.is_available():
        from crd.memory import AliasMethod

        AliasMethod.cuda = lambda self: None


def compare(cases: Sequence[Case], rounds: int, warmup: int = 1, per: int = 1) -> list[Row]:
    """
    Measures all cases in turn, round by round.

    Args:
        cases (`Sequence[Case]`): The first one is what the others are compared with.
        rounds (`int`): How many rounds count.
        warmup (`int`, *optional*, defaults to 1): How many rounds before that do not.
        per (`int`, *optional*, defaults to 1): What the times are divided by, e.g. the steps of one run.
    """
    base = cases[0]
    cases = [*cases, replace(base, name=f"{base.name} (control)")]
    wall: dict[str, list[float]] = {case.name: [] for case in cases}
    cpu: dict[str, list[float]] = {case.name: [] for case in cases}
    for number in range(warmup + rounds):
        # Back and forth, so that a machine that gets slower or faster favors no place in the order.
        for case in cases if number % 2 else reversed(cases):
            seconds, cpu_seconds = _measured_case(case)
            if number >= warmup:
                wall[case.name].append(seconds / per)
                cpu[case.name].append(cpu_seconds / per)
    return [_row(case.name, wall, cpu, base.name) for case in cases]


def agree(what: str, found: Any, expected: Any, tolerance: float) -> float:
    """
    The largest difference of two results, relative to the largest value expected.

    Raises:
        SystemExit: It is above `tolerance`; names `what`. A benchmark of two things that differ says nothing.
    """
    found, expected = (torch.as_tensor(value, dtype=torch.float64).flatten() for value in (found, expected))
    if found.shape != expected.shape:
        raise SystemExit(f"{what}: {len(found)} numbers against {len(expected)}, so the two sides differ")
    difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
    if not difference <= tolerance:
        raise SystemExit(f"{what}: the two sides differ by {difference:.1e}, more than {tolerance:.0e}")
    return difference


def report(
    name: str,
    title: str,
    rows: Sequence[Row],
    agreement: Mapping[str, float],
    targets: Mapping[str, float],
    arguments: argparse.Namespace,
    notes: Sequence[str] = (),
    columns: Mapping[str, Mapping[str, float]] | None = None,
    limits: Mapping[str, Mapping[str, float]] | None = None,
    against: str | None = None,
) -> None:
    """
    Prints one table, and adds it to the file that `--output` names.

    Args:
        name (`str`): Name of the table, one word.
        title (`str`): What was compared, with sizes.
        rows (`Sequence[Row]`): What [`compare`] returned.
        agreement (`Mapping[str, float]`): Largest relative difference to the base, by case.
        targets (`Mapping[str, float]`): The ratio that is aimed at, by case.
        arguments (`argparse.Namespace`): Of [`parser`].
        notes (`Sequence[str]`, *optional*): What a reader has to know.
        columns (`Mapping[str, Mapping[str, float]]`, *optional*): Further columns: a value by case, e.g. memory in MB.
        limits (`Mapping[str, Mapping[str, float]]`, *optional*):
            What is aimed at not to exceed, by column and case; of further columns, `"difference"` or `"median_s"`.
        against (`str`, *optional*): What is compared with. Default: the first row.
    """
    usual = getattr(arguments, "allocator", None) == "usual" or any(name not in os.environ for name in ALLOCATOR)
    table = {
        "title": title,
        "rows": [asdict(row) for row in rows],
        "agreement": dict(agreement),
        "targets": dict(targets),
        "columns": {key: dict(values) for key, values in (columns or {}).items()},
        "limits": {key: dict(values) for key, values in (limits or {}).items()},
        "against": against or rows[0].name,
        "notes": list(notes),
        "quick": arguments.quick,
        "rounds": arguments.rounds,
        "machine": {**machine(arguments.device), "allocator": "usual" if usual else "raised"},
    }
    print(as_text(table), flush=True)
    add_table(arguments.output, name, table)


def _accelerator() -> str:
    return str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"


def _measured_case(case: Case) -> tuple[float, float]:
    seconds, cpu_seconds = _measured(case.run)
    if case.less is None:
        return seconds, cpu_seconds
    less, cpu_less = _measured(case.less)
    return seconds - less, cpu_seconds - cpu_less


def _measured(run: Callable[[], Any]) -> tuple[float, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        if accelerator_runs():
            torch.accelerator.synchronize()
        return time.perf_counter() - wall, time.process_time() - cpu


def _row(name: str, wall: dict[str, list[float]], cpu: dict[str, list[float]], base: str) -> Row:
    ratios = [ours / theirs for ours, theirs in zip(wall[base], wall[name], strict=True)]
    cpu_ratios = [ours / max(theirs, 1e-9) for ours, theirs in zip(cpu[base], cpu[name], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    times = wall[name]
    return Row(
        name=name,
        median_s=statistics.median(times),
        min_s=min(times),
        max_s=max(times),
        ratio=statistics.median(ratios),
        ratio_low=low,
        ratio_high=high,
        cpu_ratio=statistics.median(cpu_ratios),
    )
