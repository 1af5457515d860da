"""Instructions, as valgrind counts them: the same on every machine, whatever else runs there.

A process that runs under `command` costs a few times its own time until the count is switched on, and fifty
times while it is: so what is counted is the work alone, not the start.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import which
from typing import Final

from bench.rig.process import BenchError, Process

_TOTAL: Final = re.compile(rb"^totals: (\d+)", re.MULTILINE)
_LONGEST: Final = 60.0


def command(folder: Path) -> Sequence[str]:
    """Return what a process is to be run under to be counted.

    Raises:
        BenchError: valgrind is not installed.
    """
    return [
        _found("valgrind"),
        "--tool=callgrind",
        "--instr-atstart=no",
        f"--callgrind-out-file={folder}/callgrind.%p",
    ]


def instructions(process: Process, work: Callable[[], object]) -> int:
    """Return how many instructions the process takes while ``work`` is done.

    Raises:
        BenchError: valgrind does not say.
    """
    _told(process, "--instr=on")
    work()
    _told(process, "--instr=off")
    _told(process, "--dump")
    dumps = sorted(
        process.log.parent.glob(f"callgrind.{process.pid}.*"), key=lambda dump: dump.stat().st_mtime_ns
    )
    total = _TOTAL.search(dumps[-1].read_bytes()) if dumps else None
    if total is None:
        raise BenchError(f"valgrind counted nothing of {process.name}; see {process.log}")
    return int(total[1])


def _told(process: Process, wish: str) -> None:
    subprocess.run(  # noqa: S603 - our own command
        [_found("callgrind_control"), wish, str(process.pid)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_LONGEST,
        check=True,
    )


def _found(name: str) -> str:
    path = which(name)
    if path is None:
        raise BenchError(f"{name} is not installed; Debian, Ubuntu: apt install valgrind")
    return path
