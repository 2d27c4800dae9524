"""The cells of a comparison, each in a process of its own, as many at once as there are devices."""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .comparison import Cell
from .comparison_cells import finished_result, run_cell


LOG_FILE = "log.txt"


class CellError(RuntimeError):
    """Cells failed; all others were brought to their end."""


def default_jobs() -> int:
    """One cell for each accelerator, and one where there is none: a CPU is shared by the threads of one cell."""
    return max(1, torch.accelerator.device_count()) if torch.accelerator.is_available() else 1


def run_cells(
    cells: Sequence[Cell],
    output: Path,
    test_split: str,
    teacher: str | None,
    jobs: int = 1,
    report: Callable[[Cell, dict[str, Any]], None] = lambda cell, result: None,
) -> None:
    """
    Runs what is missing. A cell starts when those that it needs are finished, and its own output is in its `log.txt`.

    Args:
        cells (`Sequence[Cell]`): Those that others need come first.
        output (`Path`): Folder of the comparison.
        test_split (`str`): What is reported.
        teacher (`str`, *optional*): Trained weights that every student is compared with.
        jobs (`int`, *optional*, defaults to 1): How many cells at once. Process i takes accelerator i, or its share of the
            cores.
        report (`Callable`, *optional*): Told of every cell that is finished, also of those that were.

    Raises:
        CellError: A cell failed; names all that did, and those that could not start without them.
    """
    waiting, done, failed = {cell.name: cell for cell in cells}, set[str](), dict[str, str]()
    for cell in cells:
        kept = finished_result(output, cell)
        if kept is not None:
            done.add(waiting.pop(cell.name).name)
            report(cell, kept)
    with _slots(jobs) as pool:
        running: dict[Future[Any], tuple[Cell, int]] = {}
        free = list(range(jobs))
        while waiting or running:
            for cell in _ready(waiting, done, len(free)):
                slot = free.pop(0)
                future = pool.submit(_in_process, cell, output, test_split, teacher, slot, jobs)
                running[future] = waiting.pop(cell.name), slot
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell, slot = running.pop(future)
                free.append(slot)
                error = _error_of(future, output, cell)
                if error is None:
                    done.add(cell.name)
                    report(cell, future.result())
                else:
                    failed[cell.name] = error
    _check(failed, waiting)


def _ready(waiting: dict[str, Cell], done: set[str], free: int) -> list[Cell]:
    return [cell for cell in waiting.values() if done.issuperset(cell.needs)][:free]


def _error_of(future: Future[Any], output: Path, cell: Cell) -> str | None:
    try:
        error = future.exception()
    except BrokenProcessPool as broken:
        error = broken
    if error is None:
        return None
    if isinstance(error, BrokenProcessPool):
        error = RuntimeError("its process was ended from outside, perhaps for want of memory")
    return f"{type(error).__name__}: {error} (see {output / cell.name / LOG_FILE})"


def _check(failed: dict[str, str], waiting: dict[str, Cell]) -> None:
    if not failed:
        return
    lines = [f"{name}: {error}" for name, error in failed.items()]
    lines += [
        f"{name}: not started, because {', '.join(cell.needs)} is not finished" for name, cell in waiting.items()
    ]
    raise CellError("these cells are not finished; the same command tries them again\n" + "\n".join(lines))


@contextmanager
def _slots(jobs: int) -> Iterator[ProcessPoolExecutor]:
    # A process of its own tells the memory of a cell, and cannot take others with it. Where the system can, a server
    # that has imported everything already makes them.
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(kind)
    if kind == "forkserver":
        context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _in_process(
    cell: Cell, output: Path, test_split: str, teacher: str | None, slot: int, jobs: int
) -> dict[str, Any]:
    _take_share(slot, jobs)
    with _into_log(output / cell.name / LOG_FILE):
        try:
            return run_cell(cell, output, test_split, teacher)
        except BaseException:
            traceback.print_exc()
            raise


def _take_share(slot: int, jobs: int) -> None:
    # Nothing has touched a device in this process yet.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(torch.accelerator.device_count())]
    if len(names) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = names[slot % len(names)]
    if jobs > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // jobs))


@contextmanager
def _into_log(path: Path) -> Iterator[None]:
    """Sends what this process prints, libraries in C included, to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        kept = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(log.fileno(), number)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)
