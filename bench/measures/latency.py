"""4: what is added to the time of asking the upstream itself, one at a time and at half of saturation."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from statistics import median
from typing import Final

from bench.rig import load
from bench.rig.asking import Stopwatch, run, timed
from bench.rig.bench import BARE, ROUTER, Bench
from bench.rig.clients import client
from bench.rig.finding import Finding, interleaved
from bench.rig.load import Target
from bench.rig.subjects import STREAM, UNARY, Traffic, direct

_DIRECT: Final = "direct"
_CALLS: Final = 400
_WARM_UP: Final = 20
_SECONDS: Final = 2.0
_AT_ONCE: Final = 512
"""Calls that may be open at half of saturation; more would mean that it is no half."""

_BOUND: Final = 1.5
_MICROSECONDS: Final = 1e6

Times = Mapping[str, Sequence[Stopwatch]]


def measure(bench: Bench) -> list[Finding]:
    """Return what is added."""
    findings = []
    for traffic in (UNARY, STREAM):
        targets = {
            _DIRECT: direct(bench.folder, bench.instant(traffic.name), traffic),
            BARE: bench.bare(traffic.name).target(traffic),
            ROUTER: bench.router().target(traffic),
        }
        alone = [run(_one_at_a_time(targets)) for _ in range(bench.effort.repeats)]
        findings += _added(f"{traffic.name}, one at a time", alone, streamed=traffic is STREAM)
        rates = {name: _half_of_saturation(targets[name], traffic) for name in (BARE, ROUTER)}
        busy = interleaved(
            {
                _DIRECT: partial(_timed_beside, targets[_DIRECT], rates),
                BARE: partial(_timed_at_half, targets[BARE], traffic, rates, BARE),
                ROUTER: partial(_timed_at_half, targets[ROUTER], traffic, rates, ROUTER),
            },
            bench.effort.repeats,
        )
        repeats = [{name: busy[name][at] for name in busy} for at in range(bench.effort.repeats)]
        findings += _added(f"{traffic.name}, half of saturation", repeats, streamed=traffic is STREAM)
    return findings


def _added(words: str, repeats: Sequence[Times], *, streamed: bool) -> list[Finding]:
    parts = ("first", "whole") if streamed else ("whole",)
    return [
        _compared(f"added to {part}: {words}", repeats, part, share)
        for part in parts
        for share in (0.5, 0.99)
    ]


def _compared(words: str, repeats: Sequence[Times], part: str, share: float) -> Finding:
    def at(times: Sequence[Stopwatch]) -> float:
        ordered = sorted(getattr(watch, part) for watch in times)
        value: float = ordered[int(len(ordered) * share)]
        return value * _MICROSECONDS

    ours = [at(times[ROUTER]) - at(times[_DIRECT]) for times in repeats]
    bare = [at(times[BARE]) - at(times[_DIRECT]) for times in repeats]
    turns = [a / max(b, 1.0) for a, b in zip(ours, bare, strict=True)]
    return Finding(
        4,
        f"{words}, p{share * 100:g}",
        median(turns),
        _BOUND,
        ours=median(ours),
        other=median(bare),
        unit="µs",
        turns=turns,
    )


async def _one_at_a_time(targets: Mapping[str, Target]) -> Times:
    found: dict[str, list[Stopwatch]] = {name: [] for name in targets}
    async with AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(client(targets[name], 1)) for name in targets}
        bodies = {name: target.body.read_bytes() for name, target in targets.items()}
        for number in range(_WARM_UP + _CALLS):
            for name in targets:
                watch = await timed(clients[name], bodies[name])
                if number >= _WARM_UP:
                    found[name].append(watch)
    return found


def _half_of_saturation(target: Target, traffic: Traffic) -> float:
    calls = 2_000 if traffic is UNARY else 1_000
    done = load.run(target, calls)
    return calls / done.seconds / 2


def _timed_beside(target: Target, rates: Mapping[str, float]) -> Sequence[Stopwatch]:
    return run(_at(target, min(rates.values())))


def _timed_at_half(
    target: Target, traffic: Traffic, rates: dict[str, float], name: str
) -> Sequence[Stopwatch]:
    # Found anew each turn: on a machine that is slower by now, what was half is more.
    rates[name] = _half_of_saturation(target, traffic)
    return run(_at(target, rates[name]))


async def _at(target: Target, rate: float) -> Sequence[Stopwatch]:
    """Ask at random times, so many a second on average, whether or not there are answers."""
    body = target.body.read_bytes()
    moments = random.Random(1)
    tasks: list[asyncio.Task[Stopwatch]] = []
    async with client(target, _AT_ONCE) as server:
        due = begin = time.perf_counter()
        while due < begin + _SECONDS:
            due += moments.expovariate(rate)
            await asyncio.sleep(due - time.perf_counter())
            # Counted from when it was due: a client that is late must not hide that the answer is.
            tasks.append(asyncio.create_task(timed(server, body, due)))
        return await asyncio.gather(*tasks)
