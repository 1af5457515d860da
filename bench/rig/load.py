"""Load from h2load, and the CPU time that it cost the process under test."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Final

from bench.rig.process import BenchError, Process

_FINISHED: Final = re.compile(r"finished in ([\d.]+)(us|ms|s)")
_STATUS: Final = re.compile(r"status codes: (\d+) 2xx")
_BYTES: Final = re.compile(r"\((\d+)\) data")
_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_LONGEST: Final = 300.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where load goes, and what it is.

    Attributes:
        process: whose CPU time counts; None measures the rate alone.
        url: of every request.
        body: a file.
        headers: ``name: value``.
        http1: HTTP/1.1 in place of HTTP/2.
        least: bytes that the body of every answer has; a failed gRPC call has none, and HTTP's status 200.
    """

    process: Process | None
    url: str
    body: Path
    headers: Sequence[str]
    http1: bool = False
    least: int = 1


@dataclass(frozen=True, slots=True)
class Load:
    """What a run of load came to; times in seconds, sizes of all answers' bodies in bytes."""

    calls: int
    seconds: float
    cpu_seconds: float
    answer_bytes: int

    def __add__(self, other: Load) -> Load:
        """Return what both came to."""
        return Load(
            self.calls + other.calls,
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            self.answer_bytes + other.answer_bytes,
        )

    @property
    def cpu_per_call(self) -> float:
        """CPU microseconds of the process under test."""
        return self.cpu_seconds / self.calls * 1e6

    @property
    def calls_per_core(self) -> float:
        """What one core can do in a second."""
        return self.calls / self.cpu_seconds

    @property
    def calls_per_second(self) -> float:
        """What was answered in a second, by the clock."""
        return self.calls / self.seconds


def run(target: Target, calls: int, *, connections: int = 4, streams: int = 8) -> Load:
    """Send so many calls, ``connections`` x ``streams`` at once, and wait for their answers.

    Raises:
        BenchError: not all were answered, or h2load is not installed.
    """
    command = which("h2load")
    if command is None:
        raise BenchError("h2load is not installed; Debian, Ubuntu: apt install nghttp2-client")
    clients = connections * streams if target.http1 else connections
    arguments = [command, "-n", str(calls), "-c", str(min(clients, calls)), "-d", str(target.body)]
    arguments += ["--h1", "-m", "1"] if target.http1 else ["-m", str(streams)]
    for header in target.headers:
        arguments += ["-H", header]
    before = target.process.cpu_seconds() if target.process else 0.0
    done = subprocess.run(  # noqa: S603 - our own command
        [*arguments, target.url], capture_output=True, text=True, timeout=_LONGEST, check=False
    )
    cpu = target.process.cpu_seconds() - before if target.process else 0.0
    return read(done.stdout, calls, cpu, target.least)


def read(said: str, calls: int, cpu: float, least: int) -> Load:
    """Return what h2load says of so many calls, each of which has an answer of ``least`` bytes or more.

    Raises:
        BenchError: not all of them were.
    """
    finished, status, size = _FINISHED.search(said), _STATUS.search(said), _BYTES.search(said)
    if finished is None or status is None or size is None or int(status[1]) != calls:
        raise BenchError(f"h2load: not all of {calls} calls were answered:\n{said[-1_500:]}")
    if int(size[1]) < calls * least:
        raise BenchError(
            f"{calls} calls were answered with {int(size[1]):,} bytes, where each answer has {least:,} "
            "at least: calls failed; their server's log says why"
        )
    seconds = float(finished[1]) * _SECONDS[finished[2]]
    return Load(calls, seconds, cpu, int(size[1]))
