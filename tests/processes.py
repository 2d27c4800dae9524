"""Scripts and workers in processes of their own, and in one, two or four processes on the CPU with the real launcher."""

import json
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from warm_python import warm_python


TESTS = Path(__file__).parent
ROOT = TESTS.parent
ONE = ["--cpu", "--num_processes", "1"]
TWO = ["--config_file", str(ROOT / "examples" / "accelerate_configs" / "two_cpu_processes.yaml")]
FOUR = [*TWO, "--num_processes", "4"]


def environment(*folders: Path) -> dict[str, str]:
    """That of this process, with this repository's package, and the modules of `folders`, found first."""
    paths = [*map(str, folders), str(ROOT / "src"), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run_python(
    *arguments: object, check: bool = True, python: str | None = None, folders: Sequence[Path] = ()
) -> subprocess.CompletedProcess[str]:
    """What `python ARGUMENTS` prints in the folder of this repository; it has to succeed unless `check` is false."""
    command = [python or warm_python(), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment(*folders), capture_output=True, text=True, timeout=500)
    assert not check or done.returncode == 0, done.stderr[-3000:] + done.stdout[-2000:]
    return done


def run_launched(launcher: list[str], *command: object, **given: Any) -> subprocess.CompletedProcess[str]:
    """The same through `accelerate launch`, with a port that is free; modules of the tests are found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["-m", "accelerate.commands.launch", "--main_process_port", port, *launcher]
    return run_python(*options, *command, folders=[TESTS], **given)


def launch(worker: Path, launcher: list[str], folder: Path, *arguments: object, **given: Any) -> list[dict]:
    """Runs the worker to its end, with a folder that is made, and gives its reports."""
    folder.mkdir(parents=True, exist_ok=True)
    run_launched(launcher, worker, folder, *arguments, **given)
    return reports(folder)


def reports(folder: Path) -> list[dict]:
    """What each process wrote there, in the order of their ranks."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("report_*.json"))]
