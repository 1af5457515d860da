"""9: two workers: what a call costs then, and how evenly callers' connections share them.

Two processes that take turns on one core throw each other out of its caches, whatever they are: so the two
workers have a core each here, of which the second is also the load's, and *two bare processes* on one core,
over one, say how much of the same on one core is nobody's doing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

from bench.measures.paced import unlimited
from bench.rig import load, subjects
from bench.rig.bench import BARE, Bench
from bench.rig.finding import Finding, compared, interleaved
from bench.rig.process import Process, cpu_seconds_of
from bench.rig.subjects import UNARY, Subject

_ONE: Final = "one worker"
_APART: Final = "a core each"
_TOGETHER: Final = "one core"
_TWO_BARES: Final = "two bare processes"
_CONNECTIONS: Final = 256
"""A channel stays with one worker, so the split is as even as so many tosses of a coin: 50 ± 3 %."""

_OWN_SESSION: Final = ("setsid",)
"""As workers have: Linux shares cores among sessions, and on a busy machine a router in one of its own took
1.8 to 2.3 times the CPU time of one in the session that the load is in."""

_CALLS: Final = 1_024
_TURNS: Final = 3
_EVEN: Final = 0.6


def measure(bench: Bench) -> list[Finding]:
    """Return what the second worker costs, and the larger worker's share."""
    upstream = bench.instant(UNARY.name)
    upstreams = {UNARY.name: upstream}
    shares: list[float] = []
    with ExitStack() as stack:
        one = bench.new_router(upstreams, unlimited, under=_OWN_SESSION)
        together, apart = (bench.new_router(upstreams, _two) for _ in range(2))
        bare, two_bares = (bench.new_bare(upstream, under=_OWN_SESSION) for _ in range(2))
        command = [*_OWN_SESSION, *subjects.bare_command(two_bares.port, upstream, BARE)]
        second = Process("second-bare", command, bench.core, bench.folder, subjects.PYTHON)
        for process in (one.process, together.process, apart.process, second):
            stack.enter_context(process)
        apart.process.spread([bench.core, bench.other_core])

        def shared() -> float:
            before = _by_process(apart.process)
            cost = _cost(apart, apart.process)
            used = sorted(_by_process(apart.process)[pid] - before[pid] for pid in before)
            shares.append(used[-1] / (used[-1] + used[-2]))
            return cost

        runs: Mapping[str, Callable[[], float]] = {
            _ONE: lambda: _cost(one, one.process),
            _APART: shared,
            _TOGETHER: lambda: _cost(together, together.process),
            BARE: lambda: _cost(bare, bare.process),
            _TWO_BARES: lambda: _cost(two_bares, two_bares.process, second),
        }
        time.sleep(1)  # until the second of the bare processes listens
        interleaved(runs, 1)
        shares.clear()
        found = interleaved(runs, _TURNS)
    share = sorted(shares)[len(shares) // 2]
    words = "two workers, {}: CPU per call"
    return [
        compared(9, words.format(_APART), found, _APART, _ONE, unit="µs", bound=1.1),
        compared(9, words.format(_TOGETHER), found, _TOGETHER, _ONE, unit="µs"),
        compared(9, f"{_TWO_BARES}, {_TOGETHER}: CPU per call", found, _TWO_BARES, BARE, unit="µs"),
        Finding(9, "two workers: the busier one's share", share, _EVEN, against="all"),
    ]


def _cost(subject: Subject, *processes: Process) -> float:
    before = sum(process.cpu_seconds() for process in processes)
    load.run(subject.target(UNARY), _CALLS, connections=_CONNECTIONS, streams=1)
    return (sum(process.cpu_seconds() for process in processes) - before) / _CALLS * 1e6


def _by_process(process: Process) -> dict[int, float]:
    return {pid: cpu_seconds_of(pid) for pid in process.pids()}


def _two(config: dict[str, Any]) -> None:
    unlimited(config)
    server = config["server"]
    server["workers"] = 2
