"""Processes on a core of their own, and what the operating system says that they used.

Linux alone: cores are given with taskset, and CPU time is read from the clock that every process has.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final, Self

import psutil

_GENTLY: Final = 0.3
"""Seconds for a process to end by itself: a router waits for its last callers, and has none that count."""


class BenchError(Exception):
    """The measurement cannot go on; the text says why and what to do."""


def cores() -> tuple[int, int]:
    """Return the core for what is measured, and the one for everything else.

    Raises:
        BenchError: there are no two.
    """
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:  # noqa: PLR2004 - one for each side
        raise BenchError("two cores are needed: one for what is measured, one for the load")
    return available[0], available[1]


def leave_when_told() -> None:
    """Take SIGTERM and SIGHUP for Ctrl-C, which ends all in order: no server is left over, and no folder."""

    def leave(_signum: int, _frame: FrameType | None) -> None:
        # Not by an exception of its own: asyncio lets a client end in order on this one alone.
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background has turned off
    for told in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(told, leave)


class Process:
    """A process and its children, on one core, until the context ends.

    Args:
        name: its log is ``<folder>/<name>.log``.
        command: what to run.
        core: where.
        folder: for its log.
        env: its environment beside PATH and HOME.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        core: int,
        folder: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "PYTHONPATH") if key in os.environ}
        with self.log.open("wb") as log:
            self._popen = subprocess.Popen(  # noqa: S603 - our own commands
                ["taskset", "-c", str(core), *command],  # noqa: S607 - wherever it is installed
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**kept, **(env or {})},
                cwd=folder,
            )

    def __enter__(self) -> Self:
        """Return the process, which runs already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    @property
    def pid(self) -> int:
        """The first process's id."""
        return self._popen.pid

    def check_running(self) -> None:
        """Do nothing while it runs.

        Raises:
            BenchError: it has ended; with the end of its log.
        """
        if self._popen.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2_000:]
            raise BenchError(f"{self.name} ended with {self._popen.returncode}:\n{tail}")

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process and its children so far, user and system."""
        return sum(map(cpu_seconds_of, self.pids()))

    def resident_bytes(self) -> int:
        """Return the resident memory of the process and its children."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.pids())

    def pids(self) -> Iterator[int]:
        """Yield the process and its children.

        Raises:
            BenchError: it has ended.
        """
        self.check_running()
        yield self.pid
        for child in psutil.Process(self.pid).children(recursive=True):
            yield child.pid

    def spread(self, over: Sequence[int]) -> None:
        """Give each child, with all its threads, another of these cores, in turn."""
        for number, child in enumerate(psutil.Process(self.pid).children()):
            for thread in child.threads():
                os.sched_setaffinity(thread.id, {over[number % len(over)]})

    def wait(self, longest: float) -> int:
        """Return its exit code once it has ended by itself."""
        return self._popen.wait(longest)

    def stop(self) -> None:
        """End it and its children, gently first."""
        if self._popen.poll() is not None:
            return
        itself = psutil.Process(self.pid)
        family = [itself, *itself.children(recursive=True)]
        self._popen.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_GENTLY)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        self._popen.wait()


def cpu_seconds_of(pid: int) -> float:
    """Return the CPU time of one process so far."""
    # What clock_getcpuclockid(3) returns: all threads, ended ones too, to the nanosecond. /proc/PID/stat
    # says the same in ticks of 10 ms.
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:  # a child that has just ended
        return 0.0
