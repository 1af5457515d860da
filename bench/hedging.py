"""Hedging, simulated: times to first token with and without, and what it costs.

    python -m bench.hedging

Two targets that are alike; calls go to the first. Either one answer in twenty is slow, always; or for four
of the ten minutes the first target is ten times slower; or three in ten of its calls hang. See
docs/hedging.md.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final

from bench.simulated import SEED, Measured, SimulatedProvider, measure, poisson, router_over
from router_server.core.hedge import Hedging, Percentile
from router_server.core.limiter import Limits
from router_server.core.provider import UpstreamChat
from tests.clock import run_in_virtual_time

_SECONDS: Final = 600.0
_RATE: Final = 30.0
_OUTAGE: Final = (180.0, 420.0)
_HANGS: Final = 0.3
_SLOW: Final = 0.05

Scenario = Callable[[random.Random], Sequence[SimulatedProvider]]


def slow_tail(rng: random.Random) -> Sequence[SimulatedProvider]:
    """One answer in twenty takes ten times as long, from both."""

    async def first_token(_call: UpstreamChat) -> None:
        await asyncio.sleep(_usual(rng) * (10 if rng.random() < _SLOW else 1))

    return [_provider(first_token), _provider(first_token)]


def slow_target(rng: random.Random) -> Sequence[SimulatedProvider]:
    """In the outage every answer of the first takes ten times as long."""

    async def first_token(_call: UpstreamChat) -> None:
        await asyncio.sleep(_usual(rng) * (10 if _in_outage() else 1))

    return [_provider(first_token), _provider(_well(rng))]


def hanging(rng: random.Random) -> Sequence[SimulatedProvider]:
    """In the outage three in ten calls to the first are never answered."""
    well = _well(rng)

    async def first_token(call: UpstreamChat) -> None:
        if _in_outage() and rng.random() < _HANGS:
            await asyncio.get_running_loop().create_future()
        await well(call)

    return [_provider(first_token), _provider(well)]


def _well(rng: random.Random) -> Callable[[UpstreamChat], Awaitable[None]]:
    async def first_token(_call: UpstreamChat) -> None:
        await asyncio.sleep(_usual(rng))

    return first_token


def _usual(rng: random.Random) -> float:
    return 0.4 * rng.lognormvariate(0, 0.3)


def _in_outage() -> bool:
    return _OUTAGE[0] <= asyncio.get_running_loop().time() < _OUTAGE[1]


def _provider(first_token: Callable[[UpstreamChat], Awaitable[None]]) -> SimulatedProvider:
    return SimulatedProvider(first_token, lambda: 2.0)


async def run(
    scenario: Scenario, hedging: Hedging | None, seed: int = SEED, seconds: float = _SECONDS
) -> Mapping[str, tuple[Measured, float]]:
    """Return for each phase what callers saw, and how many requests were sent upstream for each call."""
    rng = random.Random(seed)
    providers = scenario(rng)
    router, _upstreams = router_over(providers, limits=Limits(max_concurrency=1000), hedging=hedging)
    arrivals = list(poisson(random.Random(seed), lambda _now: _RATE, seconds))
    phase = _always if scenario is slow_tail else _phase
    groups = await measure(router, arrivals, lambda arrival: phase(arrival.at))
    calls = Counter(phase(arrival.at) for arrival in arrivals)
    requests = Counter(phase(at) for provider in providers for at in provider.asked)
    return {name: (measured, requests[name] / calls[name]) for name, measured in groups.items()}


def _always(_at: float) -> str:
    return "all"


def _phase(at: float) -> str:
    return "in the outage" if _OUTAGE[0] <= at < _OUTAGE[1] else "outside it"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.hedging", description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    seed = parser.parse_args().seed
    print(f"simulated, seed {seed}; seconds to the first token; requests sent upstream for each call")
    print(
        f"{'scenario':12}{'calls':15}{'hedge':21}{'p50':>8}{'p95':>8}{'p99':>8}{'failed':>8}{'requests':>10}"
    )
    for scenario in (slow_tail, slow_target, hanging):
        for name, hedging in _variants():
            for calls, (measured, requests) in run_in_virtual_time(run(scenario, hedging, seed)).items():
                times = f"{measured.columns()}{measured.failed:8}{requests:10.3f}"
                print(f"{scenario.__name__:12}{calls:15}{name:21}{times}", flush=True)


def _variants() -> Iterator[tuple[str, Hedging | None]]:
    yield "off", None
    yield "p95, max_extra 0.05", Hedging(Percentile.P95, 0.05)
    yield "1s, max_extra 1", Hedging(1.0, 1.0)


if __name__ == "__main__":
    main()
