"""
A Python that has imported the libraries already: what the tests start with it is forked from one process that waits.

Importing torch, torchvision, transformers and the rest takes longer than most of the runs that tests start, and a launcher
with two workers does it three times. [`warm_python`] gives the path of a program with the command line of Python (`SCRIPT`,
`-m MODULE`, `-c CODE`, and `-u`) that hands its arguments, environment, folder and streams to that process. What a library
reads from the environment when it is imported is as it was when the first one started, and the order of sets is the same in
all of them, so that tests of such settings, of signals and of limits, and one of each kind of run, take `sys.executable`.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import types
from pathlib import Path


LIBRARIES = ("headshare_hf", *(LAUNCHERS := ("accelerate.commands.launch", "torch.distributed.run")))
STATUS = 0
# Python's own flags are cut to those that make it start fast; it is a client of a few lines and imports nothing else.
# The first lines are for a shell, whose path has no spaces and is short, and a string to Python.
CLIENT = """#!/bin/sh
'''exec' "{python}" -ISB "$0" "$@"
' '''
import array, json, os, signal, socket, sys
flags = [word for word in sys.argv[1:2] if word.startswith("-")]
if not set(flags) <= {{"-u", "-m", "-c"}}:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps([sys.argv, dict(os.environ), os.getcwd()]).encode()
streams = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
server.sendmsg([len(request).to_bytes(8, "big")], streams)
server.sendall(request)
replies = server.makefile("r")
process = int(replies.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda given, _: os.kill(process, given))
status = int(replies.readline() or 1)
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


@functools.cache
def warm_python() -> str:
    """Path of the program; the process that it asks is started by the first call and ends with this one."""
    folder = Path(tempfile.mkdtemp(prefix="warm-python-"))
    address, client = str(folder / "socket"), folder / "python"
    client.write_text(CLIENT.format(python=sys.executable, address=address))
    client.chmod(0o755)
    # It ends when its standard input does.
    command = [sys.executable, __file__, address, str(client)]
    # Threads of OpenMP do not outlive a fork; without any, forks start their own. And it imports this repository's package.
    sources = os.pathsep.join(filter(None, [str(Path(__file__).parents[1] / "src"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": sources}
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.communicate)
    if server.stdout.readline() != b"ready\n":
        raise RuntimeError(f"the process with imported libraries did not start; see `{' '.join(command)}`")
    return str(client)


def main(address: str, client: str) -> None:
    """Waits for requests; comes back in a fork that has done what was asked, or at the end."""
    # Registered before all others, and so called after them.
    atexit.register(_leave)
    for name in LIBRARIES:
        importlib.import_module(name)
    # They are started with `-m`, which warns about a module that is there already.
    for name in LAUNCHERS:
        del sys.modules[name]
    # Forks have the search path of their clients.
    for path in filter(None, os.environ["PYTHONPATH"].split(os.pathsep)):
        sys.path.remove(path)
    gc.freeze()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    # Nobody waits for those that watch a fork.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while sys.stdin not in select.select([sys.stdin, listening], [], [])[0]:
        connection, _ = listening.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listening.close()
            arguments, environment, folder, streams = _receive(connection)
            fork = os.fork()
            if fork == 0:
                connection.close()
                return _do([client, *arguments[1:]], environment, folder, streams)
            _watch(connection, fork)
        connection.close()


def _receive(connection: socket.socket) -> tuple[list[str], dict[str, str], str, list[int]]:
    length, streams, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as reader:
        arguments, environment, folder = json.loads(reader.read(int.from_bytes(length, "big")))
    return arguments, environment, folder, list(streams)


def _watch(connection: socket.socket, fork: int) -> None:
    """Tells the client how the fork ended; ends it, and what it started in its session, where the client was killed."""
    # Of Ctrl-C the client hears too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        connection.sendall(f"{fork}\n".encode())
        ended = os.pidfd_open(fork)
        if ended in select.select([ended, connection], [], [])[0]:
            status = os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])
            connection.sendall(f"{status}\n".encode())
            os._exit(0)
    except OSError:
        # The client has gone.
        pass
    finally:
        with contextlib.suppress(OSError):
            os.kill(fork, signal.SIGKILL)
            os.killpg(fork, signal.SIGKILL)
        os._exit(0)


def _become(environment: dict[str, str], folder: str, streams: list[int]) -> None:
    """Takes the environment, the folder and the standard streams of the client, in a session of its own."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[1:1] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    import torch

    # Read by OpenMP when it is loaded.
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", os.cpu_count() or 1)))


def _do(command: list[str], environment: dict[str, str], folder: str, streams: list[int]) -> None:
    """Runs it as the client would, and keeps the status for [`_leave`]."""
    global STATUS
    # Whatever goes wrong from here on is a failure.
    STATUS = 1
    try:
        _become(environment, folder, streams)
        _run(command)
        STATUS = 0
    except SystemExit as exit:
        STATUS = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        if isinstance(exit.code, str):
            sys.stderr.write(f"{exit.code}\n")
    except BaseException:
        traceback.print_exc()


def _leave() -> None:
    """Ends the process without taking apart every module, which would take seconds in each fork."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(STATUS)


def _run(command: list[str]) -> None:
    """What `python ARGUMENTS` does."""
    sys.executable, sys.orig_argv = command[0], list(command)
    arguments = command[1:]
    if arguments[0] == "-u":
        sys.stdout.reconfigure(line_buffering=True)
        arguments.pop(0)
    kind = arguments.pop(0) if arguments[0] in ("-m", "-c") else None
    sys.argv = arguments
    if kind == "-m":
        sys.path[0] = os.getcwd()
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if kind == "-c":
        code, name, arguments[0], sys.path[0] = arguments[0], "<string>", "-c", ""
    else:
        script = Path(arguments[0]).resolve()
        code, name, main.__file__, sys.path[0] = script.read_bytes(), arguments[0], str(script), str(script.parent)
    exec(compile(code, name, "exec"), main.__dict__)


if __name__ == "__main__":
    main(*sys.argv[1:])
