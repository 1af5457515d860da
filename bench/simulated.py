"""A simulation: the real router over made-up providers, in virtual time, from one seed.

An hour of traffic takes seconds, and the same seed gives the same numbers on every machine. Only the
providers, the callers and the clock are made up.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from router_server.core.adaptive import Adaptive
from router_server.core.checks import Checks
from router_server.core.errors import Outcome, RouterError, UpstreamError
from router_server.core.hedge import Hedging
from router_server.core.limiter import Limiter, Limits
from router_server.core.observer import Observer
from router_server.core.observers import fan_out
from router_server.core.provider import Capability, UpstreamChat, UpstreamEmbed
from router_server.core.results import Invocation
from router_server.core.route import Route
from router_server.core.router import Router
from router_server.core.target import Target, TargetSettings, Upstream
from router_server.core.types import (
    Answer,
    ChatRequest,
    Delta,
    DeltaKind,
    Embeddings,
    Finish,
    FinishReason,
    Message,
    Report,
    Role,
    StreamItem,
    Text,
    Usage,
)

SEED: Final = 20

_TOKEN: Final[Sequence[StreamItem]] = (Delta(0, DeltaKind.TEXT, "Hello"),)
_END: Final[Sequence[StreamItem]] = (Finish(FinishReason.STOP), Report(Usage(10, 50)))


@dataclass
class SimulatedProvider:
    """A provider that streams.

    Args:
        first_token: awaited before the first token; a call's prompt is its last message.
        decode: gives the seconds from the first token to the end.
        capacity: how many calls it takes at once; it refuses others with 429 and Retry-After 1 s.
        slots: how many it computes at once; it lets others wait, in order of arrival.
    """

    first_token: Callable[[UpstreamChat], Awaitable[None]]
    decode: Callable[[], float]
    capacity: float = math.inf
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1_000_000))
    asked: list[float] = field(default_factory=list)
    refused: int = 0
    running: int = 0
    max_embed_batch: int = 1
    address: tuple[str, int | None] = ("", None)

    async def stream(self, call: UpstreamChat) -> AsyncIterator[Sequence[StreamItem]]:
        """Yield an answer of one token."""
        self.asked.append(asyncio.get_running_loop().time())
        if self.running >= self.capacity:
            self.refused += 1
            raise UpstreamError(Outcome.RATE_LIMITED, "http_429", status=429, retry_after=1.0)
        self.running += 1
        try:
            async with self.slots:
                await self.first_token(call)
                yield _TOKEN
                await asyncio.sleep(self.decode())
            yield _END
        finally:
            self.running -= 1

    async def chat(self, call: UpstreamChat) -> Answer:
        """Refuse: only streams are simulated."""
        raise UpstreamError(Outcome.INVALID_REQUEST, f"{call.model}_only_streams")

    async def embed(self, call: UpstreamEmbed) -> Embeddings:
        """Refuse: only streams are simulated."""
        raise UpstreamError(Outcome.INVALID_REQUEST, f"{call.model}_only_streams")

    async def check(self) -> bool | None:
        """Return None: it has no health of its own."""
        return None

    async def close(self) -> None:
        """Hold nothing."""


def router_over(
    providers: Sequence[SimulatedProvider],
    *,
    limits: Limits | None = None,
    hedging: Hedging | None = None,
    adaptive: int | None = None,
    observers: Sequence[Observer] = (),
) -> tuple[Router, Sequence[Upstream]]:
    """Return a router with one route, ``chat``, over one target for each provider, in order."""
    clock = asyncio.get_running_loop().time
    upstreams = [
        Upstream(f"p{number}", "simulated", provider, Limiter(limits or Limits(), clock), check=None)
        for number, provider in enumerate(providers, 1)
    ]
    for upstream in upstreams:
        upstream.adaptive = None if adaptive is None else Adaptive(upstream.limiter, adaptive, clock)
    able = frozenset(Capability)
    targets = [Target(TargetSettings(u.name, "m", able), u, clock, jitter=lambda: 1.0) for u in upstreams]
    checks = Checks(upstreams, lambda upstream: [t for t in targets if t.upstream is upstream], lambda: None)
    route = Route("chat", tuple(targets), hedging=hedging)
    return Router([route], checks, fan_out(observers), clock=clock), upstreams


@dataclass
class Measured:
    """What callers saw: seconds from a call's arrival to its first token, and how many calls failed."""

    first_tokens: list[float] = field(default_factory=list)
    failed: int = 0

    def percentile(self, share: float) -> float:
        """Return the seconds within which ``share`` of the calls had their first token; NaN without any."""
        times = sorted(self.first_tokens)
        return times[math.ceil(share * len(times)) - 1] if times else math.nan

    def columns(self) -> str:
        """Return p50, p95 and p99."""
        return "".join(f"{self.percentile(share):8.2f}" for share in (0.5, 0.95, 0.99))


@dataclass(frozen=True)
class Arrival:
    """A call that comes ``at`` a moment, with a prompt of that many tokens."""

    at: float
    prompt: int = 100


def poisson(rng: random.Random, rate: Callable[[float], float], seconds: float) -> Iterable[Arrival]:
    """Yield arrivals at ``rate(now)`` a second."""
    now = 0.0
    while (now := now + rng.expovariate(rate(now))) < seconds:
        yield Arrival(now)


async def measure(
    router: Router, arrivals: Iterable[Arrival], group: Callable[[Arrival], str]
) -> dict[str, Measured]:
    """Make every call when its time has come; return what was measured, by ``group``."""
    loop = asyncio.get_running_loop()
    groups: dict[str, Measured] = {}

    async def call(arrival: Arrival) -> None:
        measured = groups.setdefault(group(arrival), Measured())
        request = ChatRequest("chat", (Message(Role.USER, (Text("four" * arrival.prompt),)),))
        first: float | None = None
        try:
            async for _event in router.stream(request, Invocation("simulated", 60.0)):
                first = loop.time() if first is None else first
        except RouterError:
            measured.failed += 1
            return
        measured.first_tokens.append((loop.time() if first is None else first) - arrival.at)

    async with asyncio.TaskGroup() as running:
        for arrival in arrivals:
            await asyncio.sleep(arrival.at - loop.time())
            running.create_task(call(arrival))
    return groups
