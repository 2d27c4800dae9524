"""What tests start with it ends as it would with Python itself: a failure that was lost would make them all pass."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import run_python
from warm_python import warm_python


SHOW = "import os, sys; print(sys.argv, os.getcwd(), os.environ.get('HERE'), sys.path[:2], __name__)"


def _run(*arguments, python=None, **given):
    return subprocess.run([python or warm_python(), *arguments], capture_output=True, text=True, **given)


@pytest.mark.parametrize(
    "code",
    [
        SHOW,
        "import sys; sys.stderr.write(input())",
        "raise SystemExit(3)",
        "raise SystemExit('in words')",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import atexit; atexit.register(print, 'at the end')",
        "import os; os._exit(7)",
    ],
)
def test_code_does_the_same(code, tmp_path):
    given = {"cwd": tmp_path, "input": "a line\n", "env": {**os.environ, "HERE": "set", "PYTHONPATH": "/elsewhere"}}
    found, expected = (_run("-c", code, "x", python=python, **given) for python in (None, sys.executable))
    assert (found.returncode, found.stdout, found.stderr) == (expected.returncode, expected.stdout, expected.stderr)


def test_a_script_and_a_module_do_the_same(tmp_path):
    (tmp_path / "shown.py").write_text(SHOW)
    for arguments in (["shown.py", "-u"], ["-u", str(tmp_path / "shown.py")], ["-m", "shown", "x"], ["-V"]):
        found, expected = (_run(*arguments, python=python, cwd=tmp_path) for python in (None, sys.executable))
        assert found.returncode == 0 and found.stdout == expected.stdout and found.stdout, arguments


def test_errors_are_seen():
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_python("-c", "1 / 0")
    assert run_python("-c", "1 / 0", check=False).returncode == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals_end_what_was_started(number):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"
    with subprocess.Popen([warm_python(), "-c", code], stdout=subprocess.PIPE, text=True) as process:
        started = int(process.stdout.readline())
        process.send_signal(number)
    assert process.returncode == -number
    deadline = time.monotonic() + 20
    while Path(f"/proc/{started}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{started}").exists()


def test_what_cannot_begin_fails(tmp_path):
    (tmp_path / "gone").mkdir()
    code = "import os, subprocess, sys; os.rmdir(os.getcwd()); sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    command = [sys.executable, "-c", code, warm_python(), "-c", "print('begun')"]
    assert subprocess.run(command, cwd=tmp_path / "gone", capture_output=True).returncode != 0
    found = _run("-c", "print('begun')", env={**os.environ, "OMP_NUM_THREADS": "none"})
    assert found.returncode == 1 and found.stdout == "" and "ValueError" in found.stderr


def test_a_script_without_output_streams_keeps_its_status():
    assert _run("-c", "import sys; sys.stdout = None; sys.exit(3)").returncode == 3
