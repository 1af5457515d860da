"""5: the router's core alone, in instructions, over those of the bare unary call.

valgrind counts them, the same on every machine and whatever else runs there. Starting Python is counted
too, so two runs are made of each, one with more calls: what the others take is their difference.
"""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from shutil import which
from typing import Final

from bench.rig import load, subjects
from bench.rig.bench import BARE, Bench, free_port, wait_for_port
from bench.rig.finding import Finding
from bench.rig.process import BenchError, Process
from bench.rig.subjects import UNARY, Subject

_COUNTED: Final = re.compile(r"Collected : (\d+)")
_FEW: Final = 200
_MANY: Final = 1_000
_LONGEST: Final = 300.0


def measure(bench: Bench) -> list[Finding]:
    """Return the share of the core."""
    valgrind = which("valgrind")
    if valgrind is None:
        raise BenchError("valgrind is not installed; Debian, Ubuntu: apt install valgrind")
    command = [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-m"]
    with ThreadPoolExecutor() as together:
        core = [together.submit(_core, command, calls) for calls in (_FEW, _MANY)]
        bare = [together.submit(_bare, bench, command, calls) for calls in (_FEW, _MANY)]
    ours, other = ((many.result() - few.result()) / (_MANY - _FEW) / 1_000 for few, many in (core, bare))
    return [
        Finding(
            5,
            "the core alone: instructions per call",
            ours / other,
            0.15,
            ours=ours,
            other=other,
            unit="k",
            against=BARE,
        )
    ]


def _core(command: list[str], calls: int) -> int:
    done = subprocess.run(  # noqa: S603 - our own command
        [*command, "bench.core_alone", str(calls)],
        capture_output=True,
        text=True,
        timeout=_LONGEST,
        check=True,
        cwd=subjects.ROOT,
        env=subjects.PYTHON,
    )
    return _counted(done.stderr)


def _bare(bench: Bench, command: list[str], calls: int) -> int:
    port = free_port()
    arguments = ["--listen", f"127.0.0.1:{port}", "--upstream", bench.instant(UNARY.name)]
    with Process(
        f"counted-{calls}", [*command, "bench.bare", *arguments], bench.core, bench.folder, subjects.PYTHON
    ) as process:
        wait_for_port(process, port, _LONGEST)
        load.run(Subject(BARE, process, port, bench.folder).target(UNARY), calls)
    return _counted(process.log.read_text())


def _counted(said: str) -> int:
    counted = _COUNTED.search(said)
    if counted is None:
        raise BenchError(f"valgrind counted nothing:\n{said[-1_500:]}")
    return int(counted[1])
