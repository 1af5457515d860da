"""Holds one process and all its descendants, and ends them when the router ends, however that ends.

Run as a script: ``keeper.py GRACE PROGRAM [ARGUMENT…]``. Its standard input is a pipe from the router, on
which nothing is ever said: when it closes, the router is gone or wants the engine gone. Then the process
group is told to end, and after GRACE seconds, or at once on SIGINT, whatever is left is killed. A death
signal of the kernel would reach the engine alone, not the processes that it has started, and these are what
holds the GPU.

On Linux it is also the reaper of orphans below it, so not even a descendant that left the group and the
session escapes. Uses the standard library alone, so as to start quickly, and refuses to know the rest of the
package.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress

_SET_DEATH_SIGNAL = 1
_SET_CHILD_SUBREAPER = 36
"""Of prctl(2)."""

_NOT_STARTED = 127
"""The exit code of a shell for a program that it cannot run."""

_NOBODY = -1


def main() -> int:
    """Run the program until it ends or is to end; return its exit code."""
    grace, command = float(sys.argv[1]), sys.argv[2:]
    signals = _heard_signals()
    _control(_SET_CHILD_SUBREAPER, 1)
    engine = _started(command)
    code = _until_over(engine, grace, signals)
    _kill_everyone(engine)
    return code


def _heard_signals() -> int:
    """Return the end of a pipe on which every signal's number is read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    return reading


def _started(command: list[str]) -> int:
    keeper = os.getpid()
    pid = os.fork()
    if pid:
        with suppress(OSError):  # it may have done so itself, and be another program already
            os.setpgid(pid, pid)
        return pid
    try:
        # Should the keeper itself be killed: the rest of the group is then the router's, if that lives.
        _control(_SET_DEATH_SIGNAL, signal.SIGKILL)
        os.setpgid(0, 0)
        if os.getppid() == keeper:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.execvp(command[0], command)  # noqa: S606 - the configuration says what to run
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
    os._exit(_NOT_STARTED)


def _until_over(engine: int, grace: float, signals: int) -> int:
    """Wait until the engine has ended or was given up; return its exit code."""
    kill_at: float | None = None
    heard = [0, signals]
    while True:
        patience = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        ready, _, _ = select.select(heard, [], [], patience)
        numbers = os.read(signals, 64) if signals in ready else b""
        code = _reaped(engine)
        if code is not None:
            return code
        if signal.SIGINT in numbers:
            return 128 + signal.SIGKILL
        if kill_at is None and (0 in ready or signal.SIGTERM in numbers):
            heard = [signals]
            kill_at = time.monotonic() + grace
            with suppress(ProcessLookupError):
                os.killpg(engine, signal.SIGTERM)
        elif kill_at is not None and time.monotonic() >= kill_at:
            return 128 + signal.SIGKILL


def _reaped(engine: int) -> int | None:
    """Bury every child that has ended; return the engine's exit code if it was among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(_NOBODY, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == engine:
            code = os.waitstatus_to_exitcode(status)
            code = 128 - code if code < 0 else code


def _kill_everyone(engine: int) -> None:
    """Kill until no descendant is left: the children of one that dies become ours."""
    while True:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(engine, signal.SIGKILL)
        for pid in _children():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(_NOBODY, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    """Return the processes whose parent we are; none where there is no /proc to ask."""
    found = []
    with suppress(FileNotFoundError):
        for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - pathlib would make the start slower
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - as above
                # The name, in brackets, may hold anything; behind it: state, parent.
                if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                    found.append(int(name))
    return found


def _control(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
