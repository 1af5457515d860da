"""9: two workers: what a call costs then, and how evenly callers' connections share them."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from bench.measures.paced import unlimited
from bench.rig import load
from bench.rig.bench import ROUTER, Bench
from bench.rig.finding import Finding, compared, interleaved
from bench.rig.process import Process, cpu_seconds_of
from bench.rig.subjects import UNARY

_ONE: Final = "one worker"
_CONNECTIONS: Final = 256
"""A channel stays with one worker, so the split is as even as so many tosses of a coin: 50 ± 3 %."""

_EVEN: Final = 0.6


def measure(bench: Bench) -> list[Finding]:
    """Return what the second worker costs, and the larger worker's share."""
    upstreams = {UNARY.name: bench.instant(UNARY.name)}
    one, two = bench.new_router(upstreams, unlimited), bench.new_router(upstreams, _two)
    shares: list[float] = []

    def loaded(subject_name: str) -> float:
        subject = one if subject_name == _ONE else two
        before = _by_process(subject.process)
        done = bench.loaded(subject, UNARY, connections=_CONNECTIONS, streams=1)
        used = sorted(_by_process(subject.process)[pid] - before.get(pid, 0.0) for pid in before)
        if subject is two:
            shares.append(used[-1] / (used[-1] + used[-2]))
        return done.cpu_per_call

    with one.process, two.process:
        load.run(two.target(UNARY), 2_000, connections=_CONNECTIONS, streams=1)
        found = interleaved({name: partial(loaded, name) for name in (_ONE, ROUTER)}, bench.effort.repeats)
    share = sorted(shares)[len(shares) // 2]
    return [
        compared(9, "two workers: CPU per call", found, ROUTER, _ONE, unit="µs", bound=1.1),
        Finding(9, "two workers: the busier one's share", share, _EVEN, against="all"),
    ]


def _by_process(process: Process) -> dict[int, float]:
    return {pid: cpu_seconds_of(pid) for pid in process.pids()}


def _two(config: dict[str, Any]) -> None:
    unlimited(config)
    server = config["server"]
    server["workers"] = 2
