"""5: the router's core alone, in instructions, over those of the bare unary call."""

from __future__ import annotations

import socket
import sys
from functools import cache, partial
from typing import Final

from bench.rig import counting, load, subjects
from bench.rig.bench import BARE, Bench, free_port, wait_for_port
from bench.rig.finding import Finding
from bench.rig.process import Process
from bench.rig.subjects import UNARY, Subject

_CALLS: Final = 400
_WARM: Final = 100
_LONGEST: Final = 120.0
_THOUSAND: Final = 1_000


def measure(bench: Bench) -> list[Finding]:
    """Return the share of the core, and, for information, what a whole call takes."""
    core, heard = core_alone(bench, 1)
    under = counting.command(bench.folder)
    upstream = bench.instant(UNARY.name)
    bare = whole_call(bench.new_bare(upstream, under=under))
    router = whole_call(bench.new_router({UNARY.name: upstream}, under=under))
    return [
        _finding("the core alone, its events heard by one observer: instructions", heard, bare, 0.15),
        _finding("the core alone, heard by nobody: instructions", core, bare),
        _finding("unary: instructions per call", router, bare),
    ]


@cache
def core_alone(bench: Bench, targets: int) -> tuple[float, float]:
    """Return the instructions of a call with so many targets in its route: heard by nobody, and by one."""
    port = free_port()
    command = [*counting.command(bench.folder), sys.executable, "-m", "bench.core_alone"]
    command += ["--listen", f"127.0.0.1:{port}", "--targets", str(targets)]
    with Process(f"core-{port}", command, bench.core, bench.folder, subjects.PYTHON) as process:
        wait_for_port(process, port, _LONGEST)
        with socket.create_connection(("127.0.0.1", port), timeout=_LONGEST) as told:
            return _counted(process, told, b""), _counted(process, told, b" observed")


def _counted(process: Process, told: socket.socket, how: bytes) -> float:
    _make(told, _WARM, how)
    return counting.instructions(process, partial(_make, told, _CALLS, how)) / _CALLS


def whole_call(subject: Subject) -> float:
    """Return the instructions of one unary call, HTTP and gRPC included; the process ends."""
    target = subject.target(UNARY)
    with subject.process as process:
        load.run(target, _WARM)
        return counting.instructions(process, partial(load.run, target, _CALLS)) / _CALLS


def _make(told: socket.socket, calls: int, how: bytes) -> None:
    told.sendall(b"%d%s\n" % (calls, how))
    told.recv(8)


def _finding(words: str, ours: float, bare: float, bound: float | None = None) -> Finding:
    return Finding(
        5, words, ours / bare, bound, ours=ours / _THOUSAND, other=bare / _THOUSAND, unit="k", against=BARE
    )
