"""Adaptive concurrency, simulated: a provider that takes fewer calls at once than max_concurrency says.

    python -m bench.adaptive

The first target is either ``refusing``: it takes 20 calls at once and answers others with 429; or
``queueing``: it computes 20 at once and lets others wait in a queue of its own, in order of arrival, as a
vLLM server does. Both manage about 9.5 calls a second. What does not fit spills to the second target, which
takes everything. Of the calls, half with short prompts, 6 come in a second, but 15 for the last ten seconds
of each minute. See docs/adaptive-concurrency.md.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.simulated import SEED, Arrival, Measured, SimulatedProvider, measure, poisson, router_over
from router_server.core.limiter import Limits
from router_server.core.provider import UpstreamChat
from router_server.core.types import Text
from tests.clock import run_in_virtual_time

_SECONDS: Final = 1_800.0
_CAPACITY: Final = 20
_CALM: Final = 6.0
_RUSH: Final = 15.0
_RUSHES: Final = 10.0
_MINUTE: Final = 60.0
_VARIANTS: Final = (
    ("64", Limits(max_concurrency=64), None),
    ("64, adaptive", Limits(max_concurrency=64), 4),
    ("20, as it is", Limits(max_concurrency=_CAPACITY), None),
)
_SHORT: Final = 100
_LONG: Final = 4_000
_PREFILL: Final = 20_000.0
"""Prompt tokens a second."""

Scenario = Callable[[random.Random], Sequence[SimulatedProvider]]


def refusing(rng: random.Random) -> Sequence[SimulatedProvider]:
    """Refuse what is beyond the capacity."""
    return [_provider(rng, capacity=_CAPACITY), _provider(rng)]


def queueing(rng: random.Random) -> Sequence[SimulatedProvider]:
    """Let wait what is beyond the capacity."""
    provider = _provider(rng)
    provider.slots = asyncio.Semaphore(_CAPACITY)
    return [provider, _provider(rng)]


def _provider(rng: random.Random, capacity: float = math.inf) -> SimulatedProvider:
    async def first_token(call: UpstreamChat) -> None:
        await asyncio.sleep(_tokens(call) / _PREFILL * rng.lognormvariate(0, 0.2))

    return SimulatedProvider(first_token, lambda: rng.uniform(1.0, 3.0), capacity)


def _tokens(call: UpstreamChat) -> int:
    (text,) = call.messages[-1].content
    return len(text.text) // 4 if isinstance(text, Text) else 0


def _arrivals(seed: int, seconds: float) -> Sequence[Arrival]:
    rng = random.Random(seed)

    def rate(now: float) -> float:
        return _RUSH if now % _MINUTE >= _MINUTE - _RUSHES else _CALM

    return [replace(a, prompt=rng.choice((_SHORT, _LONG))) for a in poisson(rng, rate, seconds)]


@dataclass(frozen=True)
class Outcome:
    """What came of one run: what callers saw by the length of prompts, 429s, and calls that spilled over."""

    groups: Mapping[str, Measured]
    refused: int
    spilled: int


async def run(
    scenario: Scenario, limits: Limits, adaptive: int | None, seed: int = SEED, seconds: float = _SECONDS
) -> Outcome:
    """Simulate ``seconds`` of traffic; ``adaptive`` is the fewest calls at once, or None."""
    providers = scenario(random.Random(seed))
    router, _upstreams = router_over(providers, limits=limits, adaptive=adaptive)
    arrivals = _arrivals(seed, seconds)
    groups = await measure(router, arrivals, lambda a: "short" if a.prompt == _SHORT else "long")
    first, *others = providers
    return Outcome(groups, first.refused, sum(len(other.asked) for other in others))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.adaptive", description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    seed = parser.parse_args().seed
    calls = len(_arrivals(seed, _SECONDS))
    print(f"simulated, seed {seed}; {calls} calls; seconds to the first token, queue included")
    head = "".join(f"{name:>8}" for name in ("p50", "p95", "p99", "failed", "429s", "spilled"))
    print(f"{'scenario':10}{'max_concurrency':19}{'prompts':8}{head}")
    for scenario in (refusing, queueing):
        for name, limits, adaptive in _VARIANTS:
            came = run_in_virtual_time(run(scenario, limits, adaptive, seed))
            for prompts, measured in sorted(came.groups.items(), reverse=True):
                row = f"{measured.columns()}{measured.failed:8}{came.refused:8}{came.spilled:8}"
                print(f"{scenario.__name__:10}{name:19}{prompts:8}{row}", flush=True)


if __name__ == "__main__":
    main()
