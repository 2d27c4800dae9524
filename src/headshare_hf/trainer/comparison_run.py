"""The cells of a comparison, each in a process of its own, as many at once as there are devices."""

import logging
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
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
# By the type of accelerator, the variable that tells a process which ones it sees, as accelerate's launcher sets them.
_VISIBLE = {
    "cuda": "CUDA_VISIBLE_DEVICES",
    "hpu": "HABANA_VISIBLE_MODULES",
    "mlu": "MLU_VISIBLE_DEVICES",
    "musa": "MUSA_VISIBLE_DEVICES",
    "npu": "ASCEND_RT_VISIBLE_DEVICES",
    "sdaa": "SDAA_VISIBLE_DEVICES",
    "xpu": "ZE_AFFINITY_MASK",
}


class CellError(RuntimeError):
    """Cells failed; all others were brought to their end."""


class Share(NamedTuple):
    """
    What a cell has of the machine.

    Attributes:
        slot (`int`): Which of those that run at once it is.
        jobs (`int`): How many that are.
        devices (`tuple[Mapping[str, str], ...]`): For each accelerator, what makes a process see no other one, as
            variables of its environment.
    """

    slot: int
    jobs: int
    devices: tuple[Mapping[str, str], ...]


def default_jobs(on_cpu: bool = False) -> int:
    """
    One cell for each accelerator, and one where there is none: a CPU is shared by the threads of one cell. Also one where
    processes cannot be given different accelerators, as with `mps`: all would take the first.

    Args:
        on_cpu (`bool`, *optional*, defaults to `False`): Cells run on the CPU, whatever there is.
    """
    return 1 if on_cpu else max(1, len(_devices()))


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
        jobs (`int`, *optional*, defaults to 1): How many cells at once. Process i takes accelerator i where it can be shown
            that one alone, and its share of the cores.
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
    _check(failed, waiting, done)


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


def _check(failed: dict[str, str], waiting: dict[str, Cell], done: set[str]) -> None:
    if not failed:
        return
    lines = [f"{name}: {error}" for name, error in failed.items()]
    for name, cell in waiting.items():
        lacking = [needed for needed in cell.needs if needed not in done]
        verb = "is" if len(lacking) == 1 else "are"
        lines.append(f"{name}: not started, because {', '.join(lacking)} {verb} not finished")
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


def _devices() -> tuple[Mapping[str, str], ...]:
    """See [`Share`]; none where nothing tells accelerators of this type apart."""
    variable = _visibility_variable()
    if variable is None:
        return ()
    # Asked here, because a process that has counted them sees all of them from then on.
    count, named = torch.accelerator.device_count(), os.environ.get(variable)
    names = named.split(",") if named else [str(number) for number in range(count)]
    return tuple({variable: name} for name in names[:count])


def _visibility_variable() -> str | None:
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return None
    # ROCm calls itself CUDA, reads the variable of CUDA too, and its own rather than that.
    if device.type == "cuda" and torch.version.hip and os.environ.get("HIP_VISIBLE_DEVICES"):
        return "HIP_VISIBLE_DEVICES"
    return _VISIBLE.get(device.type)


def _take_share(share: Share) -> None:
    if len(share.devices) > 1:
        os.environ.update(share.devices[share.slot % len(share.devices)])
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
