"""The cells of a comparison, each in a process of its own, as many at once as there are devices."""

import logging
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout

from .comparison import Cell
from .comparison_cells import Judging, kept_results, run_cell
from .comparison_checks import TEACHER


logger = logging.getLogger(__name__)

LOG_FILE, LOCK_FILE = "log.txt", "cell.lock"


class CellError(RuntimeError):
    """Cells failed; all others were brought to their end."""


class Share(NamedTuple):
    """
    What a cell has of the machine.

    Attributes:
        slot (`int`): Which of those that run at once it is.
        jobs (`int`): How many that are.
        devices (`tuple[str, ...]`): The accelerators, as `CUDA_VISIBLE_DEVICES` calls them.
    """

    slot: int
    jobs: int
    devices: tuple[str, ...]


def default_jobs(on_cpu: bool = False) -> int:
    """
    One cell for each accelerator, and one where there is none: a CPU is shared by the threads of one cell.

    Args:
        on_cpu (`bool`, *optional*, defaults to `False`): Cells run on the CPU, whatever there is.
    """
    return 1 if on_cpu or not torch.accelerator.is_available() else max(1, torch.accelerator.device_count())


def check_alone() -> None:
    """
    Raises:
        ValueError: A launcher has started several processes of this comparison, which would all train the same.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"a launcher started {os.environ['WORLD_SIZE']} copies of this comparison; start it with `python`, and say with "
            "--jobs how many cells may run at once"
        )


def run_cells(
    cells: Sequence[Cell],
    output: Path,
    judging: Judging,
    jobs: int = 1,
    report: Callable[[Cell, dict[str, Any]], None] = lambda cell, result: None,
) -> None:
    """
    Runs what is missing. A cell starts when those that it needs are finished, and its own output is in its `log.txt`.

    Args:
        cells (`Sequence[Cell]`): Those that others need come first.
        output (`Path`): Folder of the comparison.
        judging ([`Judging`]): How they are judged.
        jobs (`int`, *optional*, defaults to 1): How many cells at once. Process i takes accelerator i, or its share of the
            cores.
        report (`Callable`, *optional*): Told of every cell that is finished, also of those that were.

    Raises:
        CellError: A cell failed; names all that did, and those that could not start without them.
        ValueError: A cell was finished with other options, or beside other weights.
    """
    kept, devices = kept_results(cells, output, judging), _devices()
    for cell in cells:
        if cell.name in kept:
            report(cell, kept[cell.name])
    waiting = {cell.name: cell for cell in cells if cell.name not in kept}
    done, failed, free = set(kept), dict[str, str](), list(range(jobs))
    running: dict[Future[Any], tuple[Cell, int]] = {}
    while waiting or running:
        for cell in _ready(waiting, done, len(free)):
            slot = free.pop(0)
            # All others wait for the ordinary teacher. Students alone on the machine go on with their share: seconds of
            # rows that had more of it would be no cost to compare.
            share = Share(slot, 1 if cell.row == TEACHER else jobs, devices)
            running[_start(cell, output, judging, share)] = waiting.pop(cell.name), slot
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


def _start(cell: Cell, output: Path, judging: Judging, share: Share) -> Future[Any]:
    # A process of its own tells the memory of a cell, and cannot take others with it: a pool of several is broken by the
    # first that is killed. Where the system can, a server that has imported everything already makes them.
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(kind)
    if kind == "forkserver":
        context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(1, mp_context=context)
    try:
        return pool.submit(_in_process, cell, output, judging, share)
    finally:
        # It ends with its only cell.
        pool.shutdown(wait=False)


def _in_process(cell: Cell, output: Path, judging: Judging, share: Share) -> dict[str, Any]:
    _take_share(share)
    folder = output / cell.name
    with _alone(folder, cell.name), _into_log(folder / LOG_FILE):
        try:
            return run_cell(cell, output, judging)
        except BaseException:
            traceback.print_exc()
            raise


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Keeps other commands from training the same cell. The lock of a process that is killed is gone with it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("another command is training %s; waiting for it", name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _devices() -> tuple[str, ...]:
    # Asked here, because a process that has counted them sees all of them from then on.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        return tuple(visible.split(","))
    return tuple(map(str, range(torch.accelerator.device_count()))) if torch.accelerator.is_available() else ()


def _take_share(share: Share) -> None:
    if len(share.devices) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = share.devices[share.slot % len(share.devices)]
    if share.jobs > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // share.jobs))


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
