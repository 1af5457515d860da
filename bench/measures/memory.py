"""7: resident memory: after the start, for each open stream that idles, and over many calls."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

from bench.measures.paced import unlimited
from bench.rig import load
from bench.rig.asking import run
from bench.rig.bench import BARE, ROUTER, Bench
from bench.rig.clients import client
from bench.rig.finding import Finding, compared, interleaved
from bench.rig.process import BenchError
from bench.rig.subjects import IDLE, UNARY, Subject

_STREAMS: Final = 5_000
_AT_ONCE: Final = 100
"""Streams that are opened together: more would wait for each other until the first token is late."""

_PATIENCE: Final = 60.0
_WARM: Final = 10_000
_CALLS: Final = 100_000
_MANY_CALLS: Final = 1_000_000
_MEBIBYTE: Final = 2**20
_KIBIBYTE: Final = 2**10


class _Opened:
    def __init__(self) -> None:
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.over = False

    def data(self, chunk: bytes) -> None:
        del chunk
        if not self.first.done():
            self.first.set_result(None)

    def end(self, error: str | None) -> None:
        self.over = True
        if not self.first.done():
            self.first.set_exception(BenchError(f"a stream did not open: {error}"))


def measure(bench: Bench) -> list[Finding]:
    """Return how much memory is held."""
    upstream = f"{bench.paced}/{IDLE.name}/v1"
    started: dict[str, list[float]] = {}
    opened: dict[str, list[float]] = {}

    def fill(name: str, subject: Subject) -> None:
        with subject.process:
            before = subject.process.resident_bytes()
            started.setdefault(name, []).append(before / _MEBIBYTE)
            grown = run(_grown(subject)) / _STREAMS
            opened.setdefault(name, []).append(grown / _KIBIBYTE)

    interleaved(
        {
            ROUTER: lambda: fill(ROUTER, bench.new_router({IDLE.name: upstream}, _patient)),
            BARE: lambda: fill(BARE, bench.new_bare(upstream)),
        },
        bench.effort.repeats if bench.effort.thorough else 1,
    )
    return [
        compared(7, "resident after the start", started, ROUTER, BARE, unit="MiB", bound=1.6),
        compared(7, f"per idle stream, {_STREAMS:,} open", opened, ROUTER, BARE, unit="KiB", bound=1.5),
        _over_calls(bench),
    ]


async def _grown(subject: Subject) -> int:
    """Return by how many bytes the process has grown once all streams are open."""
    target = subject.target(IDLE)
    body = target.body.read_bytes()
    async with client(target, _STREAMS) as server:
        before, opened = 0, list[_Opened]()
        for start in range(0, _STREAMS, _AT_ONCE):
            sinks = [_Opened() for _ in range(_AT_ONCE)]
            if not start:
                before = subject.process.resident_bytes()
            for sink in sinks:
                server.ask(body, sink)
            async with asyncio.timeout(_PATIENCE):
                await asyncio.gather(*(sink.first for sink in sinks))
            opened += sinks
        grown = subject.process.resident_bytes() - before
        if over := sum(sink.over for sink in opened):
            raise BenchError(f"{over} of {_STREAMS} streams were over before all were open")
        return grown


def _over_calls(bench: Bench) -> Finding:
    calls = _MANY_CALLS if bench.effort.thorough else _CALLS
    subject = bench.new_router({UNARY.name: bench.instant(UNARY.name)})
    with subject.process:
        resident = partial(_after, subject)
        early, late = resident(_WARM), resident(calls - _WARM)
    return Finding(
        7,
        f"resident after {calls:,} calls",
        late / early,
        1.03,
        ours=late,
        other=early,
        unit="MiB",
        against=f"after {_WARM:,}",
    )


def _after(subject: Subject, calls: int) -> float:
    load.run(subject.target(UNARY), calls)
    return subject.process.resident_bytes() / _MEBIBYTE


def _patient(config: dict[str, Any]) -> None:
    unlimited(config)
    providers = config["providers"]
    for provider in providers.values():
        provider["timeouts"] = {"connect": "60s", "first_token": "60s", "idle": "600s"}
