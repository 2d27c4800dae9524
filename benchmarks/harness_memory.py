"""Memory that a call needs, of the accelerator or of this process."""

import ctypes
import gc
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch


def accelerator_runs() -> bool:
    """Whether this process has used an accelerator, which then has to be waited for and holds the memory."""
    if not torch.accelerator.is_available():
        return False
    started = getattr(torch.get_device_module(), "is_initialized", None)
    return started is None or started()


def memory_of(run: Callable[[], Any], warmup: int = 1) -> float:
    """
    Peak memory in MB (10^6 bytes) that a call needs above what was held before it: of the accelerator where one is in
    use, and otherwise of this process; not a number outside of Linux. Measure in a fresh process, see [`peak_memory`].

    Args:
        run (`Callable`): What is measured.
        warmup (`int`, *optional*, defaults to 1): Calls before that.
    """
    for _ in range(warmup):
        run()
    gc.collect()
    if accelerator_runs():
        torch.accelerator.synchronize()
        before = torch.accelerator.memory_allocated()
        torch.accelerator.reset_peak_memory_stats()
        run()
        return (torch.accelerator.max_memory_allocated() - before) / 1e6
    if not Path("/proc/self/clear_refs").exists():
        return math.nan
    # Free pages of the heap would be used again without being seen.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    resident = _status("VmRSS")
    run()
    return max(0.0, _status("VmHWM") - resident) / 1e6


def peak_memory(script: str | Path, arguments: Sequence[str]) -> dict[str, float]:
    """
    What `script`, started with `arguments` in a process of its own, prints in its last line: a JSON object with the MB of
    [`memory_of`] by case.

    Raises:
        SystemExit: The script failed; with what it wrote.
    """
    found = subprocess.run([sys.executable, str(script), *map(str, arguments)], capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(f"{script} {' '.join(map(str, arguments))} failed:\n{found.stderr}")
    return dict(json.loads(found.stdout.splitlines()[-1]))


def _status(key: str) -> float:
    """Bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith(key))
