"""The command that evaluates IJB-C, in a process of its own: seconds and peak memory."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness import ALLOCATOR


SCRIPT = Path(__file__).parents[1] / "examples" / "run_verification.py"
COMMANDS: dict[str, list[str]] = {
    "1:1": [],
    "1:1, 200 draws for intervals": ["--bootstrap", "200"],
    "1:1 and 1:N, 200 draws": ["--bootstrap", "200", "--identification"],
}
# The peak of a process starts with that of the one that starts it, so that a small one has to stand between.
BETWEEN = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
print(json.dumps([time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3 * 1.024]))
sys.exit(process.returncode)
"""


class Used(NamedTuple):
    """Seconds of wall time and of the processor, and the peak of resident memory in MB."""

    wall: float
    cpu: float
    peak_mb: float


def run_command(folder: Path, more: Sequence[str]) -> Used:
    """
    Args:
        folder (`Path`): Has the protocol, and `features.npy`.
        more (`Sequence[str]`): Further options.

    Raises:
        SystemExit: The command failed; with what it wrote.
    """
    with tempfile.TemporaryDirectory() as output:
        features = ["--features", str(folder / "features.npy"), "--flip"]
        command = [str(SCRIPT), *features, "--ijbc", str(folder), "--output", output, *more]
        # Users have the usual allocator.
        environment = {name: value for name, value in os.environ.items() if name not in ALLOCATOR}
        found = subprocess.run(
            [sys.executable, "-c", BETWEEN, sys.executable, *command], capture_output=True, text=True, env=environment
        )
    if found.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{found.stderr}")
    return Used(*json.loads(found.stdout))
