"""Commands without the seconds of starting: one process imports, copies of it do the work.

Importing PyTorch takes seconds of CPU time, many a job of the demo less. So the workflow starts
one process that imports everything (:func:`start`), and every ``schnet`` command asks it for a copy
of itself (fork), which runs the command with the caller's files, directory and environment. The
caller forwards signals, waits and ends with the same exit status. A copy shares nothing with the
next one, so results are those of separate processes, and one that fails fails alone.

Without such a process (a command typed by hand, a job on a cluster) a command runs by itself.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

#: environment variable with the path of the socket
SOCKET = "SCHNET_WARM"
NUMBER = struct.Struct("i")
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: what the commands of the workflow import, slowest first
MODULES = (
    "matplotlib.pyplot",
    "schnet.training.loop",
    "schnet.evaluation",
    "schnet.methods.neural",
    "schnet.tables",
    "schnet.figures",
    "schnet.report",
    "schnet.cli.data",
    "schnet.cli.results",
    "schnet.cli.runs",
    "sklearn.kernel_ridge",
    "dscribe.descriptors",
    "ase.io",
    "jsonschema",
)


# ---- the workflow's side ----
def start() -> None:
    """Start the process that imports; commands of this process's children find it by ``SOCKET``.

    It ends with this process. Nothing happens where the system lacks what it takes (outside Linux).
    """
    if not hasattr(os, "pidfd_open"):
        return
    folder = tempfile.mkdtemp(prefix="schnet-")  # of this user alone
    path = os.path.join(folder, "socket")
    with socket.socket(socket.AF_UNIX) as listening:
        try:
            listening.bind(path)
        except OSError:  # the path is too long
            os.rmdir(folder)
            return
        listening.listen(socket.SOMAXCONN)
        # Libraries of a copy start no threads of their own: a copy of a thread would hang.
        single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        subprocess.Popen(
            [sys.executable, "-m", "schnet.warm", str(listening.fileno()), str(os.getpid()), path],
            pass_fds=[listening.fileno()],
            env=os.environ | single,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the commands, which forward it
        )
    os.environ[SOCKET] = path


# ---- a command's side ----
def run_warm(argv: list[str]) -> int | None:
    """Run a command in a copy of the warm process.

    Returns:
        The exit status (128 and the signal's number for a killed one), or None where there is no
        such process or the command asks for more threads than copies have.
    """
    path = os.environ.get(SOCKET)
    if not path or os.environ.get("OMP_NUM_THREADS", "1") != "1":
        return None
    environment = {key: value for key, value in os.environ.items() if key != SOCKET}
    request = json.dumps([argv, os.getcwd(), environment]).encode("utf-8", "surrogateescape")
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
            socket.send_fds(connection, [NUMBER.pack(len(request))], [0, 1, 2])
            connection.sendall(request)
            worker = _number(connection)
        except OSError:
            return None
        if worker is None:
            return None
        for number in FORWARDED:
            signal.signal(number, lambda number, _: _kill(worker, number))
        status = _number(connection)
    if status is None:  # the warm process was killed
        _kill(worker, signal.SIGTERM)
        print("schnet: error: the process that ran this command was killed", file=sys.stderr)
        return 1
    return status


def _number(connection: socket.socket) -> int | None:
    """The next number, or None where the other side is gone."""
    content = _receive(connection, NUMBER.size)
    return NUMBER.unpack(content)[0] if len(content) == NUMBER.size else None


def _receive(connection: socket.socket, length: int) -> bytes:
    """As many bytes, fewer where the other side is gone."""
    content = b""
    while len(content) < length and (more := connection.recv(length - len(content))):
        content += more
    return content


def _kill(process: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


# ---- the warm process ----
def serve(listening: socket.socket, parent: int) -> list[str] | None:
    """Make a copy for every command until the parent ends.

    Returns:
        In a copy: the command's arguments. In the process itself: None, at its end.
    """
    events = select.poll()
    events.register(listening, select.POLLIN)
    ending = os.pidfd_open(parent)
    events.register(ending, select.POLLIN)
    copies: dict[int, tuple[int, socket.socket]] = {}  # numbers and callers, by descriptor
    imported = False
    while True:
        # one event at a time: the number of a closed descriptor may be given to a new one
        event, _ = events.poll()[0]
        if event == ending:
            return None  # copies look after themselves (schnet.parent)
        if event == listening.fileno():
            if not imported:  # not for a workflow that runs no command
                _import_modules()
                imported = True
            caller, _ = listening.accept()
            try:
                number = os.fork()
            except OSError:  # no memory: the caller runs its command itself
                caller.close()
                continue
            if number == 0:
                for _, other in copies.values():
                    other.close()
                return _begin(caller)
            caller.sendall(NUMBER.pack(number))
            copy = os.pidfd_open(number)
            copies[copy] = (number, caller)
            events.register(copy, select.POLLIN)
            events.register(caller, 0)  # its end alone
        elif event in copies:
            number, caller = copies.pop(event)
            events.unregister(event)
            os.close(event)
            status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
            with caller, suppress(OSError, KeyError):
                events.unregister(caller)
                caller.sendall(NUMBER.pack(status if status >= 0 else 128 - status))
        else:  # a caller was killed
            events.unregister(event)
            for number, caller in copies.values():
                if caller.fileno() == event:
                    _kill(number, signal.SIGTERM)


def _import_modules() -> None:
    """Import what copies will share."""
    for module in MODULES:
        with suppress(ImportError):  # the command that needs it will say so
            importlib.import_module(module)
    gc.freeze()  # pages that no collection touches stay shared


def _begin(caller: socket.socket) -> list[str]:
    """In a copy: take over the caller's files, directory and environment; its arguments."""
    with caller:
        header, files, *_ = socket.recv_fds(caller, NUMBER.size, 3)
        request = _receive(caller, *NUMBER.unpack(header))
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    argv, directory, environment = json.loads(request.decode("utf-8", "surrogateescape"))
    with suppress(OSError, IndexError):  # what top and ps call this process
        Path("/proc/self/comm").write_text(f"schnet {argv[0]}")
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    return argv


def _end(status: int) -> None:
    """End a copy without taking down the interpreter, which takes longer than a short command."""
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):  # a closed pipe
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    from schnet.cli import main

    place = Path(sys.argv[3])
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        command = serve(listening, int(sys.argv[2]))
    if command is None:
        shutil.rmtree(place.parent, ignore_errors=True)
        sys.exit()
    sys.argv = ["schnet", *command]
    try:
        _end(main(command))
    except SystemExit as ending:  # argparse, and verbs with a status of their own
        _end(ending.code if isinstance(ending.code, int) else 1)
    except BaseException:
        traceback.print_exc()
        _end(1)
