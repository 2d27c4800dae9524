"""Starting a worker script in one or two processes on the CPU, with the real launcher."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path


TESTS = Path(__file__).parent
ROOT = TESTS.parent
ONE = ["--cpu", "--num_processes", "1"]
TWO = ["--config_file", str(ROOT / "examples" / "accelerate_configs" / "two_cpu_processes.yaml")]


def launch(worker: Path, launcher: list[str], *arguments: object) -> None:
    """Runs the script to its end; its first argument is a folder, which is made."""
    Path(str(arguments[0])).mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), str(ROOT / "src"), os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", str(port), *launcher]
    command += [str(worker), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def reports(folder: Path) -> list[dict]:
    """What each process wrote, in the order of their ranks."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("report_*.json"))]
