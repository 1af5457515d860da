"""11: the shortest job first: what small prompts gain beside large ones, simulated and for real.

Twenty callers, one large prompt among ten, and an upstream that computes four at once: with the order by
size that the router keeps, and in order of arrival (``max_wait_boost: 0s``). What counts is the time to
the first token of small prompts, and how many of all calls have theirs within two seconds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Any, Final

from bench.rig import bodies
from bench.rig.asking import Client, run, timed
from bench.rig.bench import Bench
from bench.rig.clients import client
from bench.rig.finding import Finding
from bench.rig.load import Target
from bench.rig.subjects import Subject, Traffic
from bench.simulated import Arrival, SimulatedProvider, router_over
from bench.simulated import measure as simulate
from router_server.core.limiter import Limits
from router_server.core.provider import UpstreamChat
from tests.clock import run_in_virtual_time

_CALLERS: Final = 20
_SLOTS: Final = 4
_SLA: Final = 2.0
_SMALL: Final = 1_000
_LARGE: Final = 300_000
_LARGE_SHARE: Final = 0.1
_SECONDS_PER_BYTE: Final = 8e-6
_DECODE: Final = 0.05
_SECONDS: Final = 10.0
_SIMULATED_SECONDS: Final = 450.0
_BYTES_PER_TOKEN: Final = 4

_ROUTE: Final = f"work-{_SECONDS_PER_BYTE * 1024 * 1000:.3f}-{_SLOTS}"
_BOOSTS: Final = {"by size": 2.0, "by arrival": 0.0}

Firsts = Mapping[int, list[float]]
"""Seconds to the first token, by the size of the prompt."""


def measure(bench: Bench) -> list[Finding]:
    """Return what the order brings."""
    simulated = {name: run_in_virtual_time(_simulated(boost)) for name, boost in _BOOSTS.items()}
    real = {name: _real(bench, boost) for name, boost in _BOOSTS.items()}
    return [*_findings("simulated", simulated), *_findings("real", real)]


def _findings(words: str, found: Mapping[str, Firsts]) -> list[Finding]:
    sized, arrived = found["by size"], found["by arrival"]
    findings = []
    for share in (0.5, 0.95):
        ours, other = _at(sized[_SMALL], share), _at(arrived[_SMALL], share)
        what = f"{words}: first token of small prompts, p{share * 100:g}"
        findings.append(
            Finding(11, what, ours / other, ours=ours, other=other, unit="s", against="by arrival")
        )
    ours, other = _within(sized), _within(arrived)
    what = f"{words}: calls with a first token in {_SLA:g} s"
    findings.append(
        Finding(
            11,
            what,
            ours / max(other, 1e-9),
            ours=100 * ours,
            other=100 * other,
            unit="%",
            against="by arrival",
        )
    )
    return findings


def _at(seconds: list[float], share: float) -> float:
    return sorted(seconds)[int(len(seconds) * share)]


def _within(firsts: Firsts) -> float:
    everyone = [seconds for group in firsts.values() for seconds in group]
    return sum(seconds < _SLA for seconds in everyone) / len(everyone)


async def _simulated(boost: float) -> Firsts:
    async def read(call: UpstreamChat) -> None:
        text = sum(len(getattr(part, "text", "")) for message in call.messages for part in message.content)
        await asyncio.sleep(text * _SECONDS_PER_BYTE)

    limits = Limits(max_concurrency=_SLOTS, queue_timeout=60.0, max_wait_boost=boost)
    router, _ = router_over([SimulatedProvider(read, lambda: _DECODE)], limits=limits)
    rng = random.Random(1)
    # As many a second as keep the upstream nine tenths busy: then there is a queue, and it does not grow.
    mean = (_SMALL + _LARGE_SHARE * (_LARGE - _SMALL)) * _SECONDS_PER_BYTE + _DECODE
    now, arrivals = 0.0, []
    while now < _SIMULATED_SECONDS:
        now += rng.expovariate(0.9 * _SLOTS / mean)
        arrivals.append(Arrival(now, _size(rng) // _BYTES_PER_TOKEN))
    groups = await simulate(router, arrivals, lambda arrival: str(arrival.prompt * _BYTES_PER_TOKEN))
    return {int(size): measured.first_tokens for size, measured in groups.items()}


def _real(bench: Bench, boost: float) -> Firsts:
    def change(config: dict[str, Any]) -> None:
        limits = {"max_concurrency": _SLOTS, "queue_timeout": "60s", "max_wait_boost": f"{boost:g}s"}
        config["providers"][_ROUTE] |= limits

    subject = bench.new_router({_ROUTE: f"{bench.paced}/{_ROUTE}/v1"}, change)
    with subject.process:
        return run(_called(subject))


async def _called(subject: Subject) -> Firsts:
    targets = {size: _target(subject, size) for size in (_SMALL, _LARGE)}
    requests = {size: target.body.read_bytes() for size, target in targets.items()}
    firsts: dict[int, list[float]] = {_SMALL: [], _LARGE: []}
    until = time.monotonic() + _SECONDS

    async def caller(number: int, server: Client) -> None:
        rng = random.Random(number)
        while time.monotonic() < until:
            size = _size(rng)
            watch = await timed(server, requests[size])
            firsts[size].append(watch.first)

    async with client(targets[_SMALL], _CALLERS) as server:
        await asyncio.gather(*(caller(number, server) for number in range(_CALLERS)))
    return firsts


def _target(subject: Subject, size: int) -> Target:
    body = bodies.framed(bodies.chat(_ROUTE, size))
    return subject.target(Traffic(f"{_ROUTE}-{size}", "StreamChat", body, "", b""))


def _size(rng: random.Random) -> int:
    return _LARGE if rng.random() < _LARGE_SHARE else _SMALL
