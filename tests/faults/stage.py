"""A router with a primary, a fallback and their timers, and what a caller sees of one call."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from textwrap import dedent
from typing import Any

from modelrouter import Answer, AsyncClient, ModelRouterError
from modelrouter.v1 import common_pb2
from router_server.core.breaker import BreakerSettings
from router_server.core.deadline import Timeouts
from router_server.core.target import HealthCheck
from tests.e2e.serving import Served, serving
from tests.faults.faults import whole
from tests.faults.wires import INPUT_TOKENS, Wire, provider_keys, said
from tests.upstream import Upstream, json_reply

OF_PRIMARY, OF_SAME, OF_FALLBACK = said("primary"), said("same"), said("fallback")


@dataclass(frozen=True)
class Timers:
    """The defaults of the configuration, all of them multiplied by ``scale``; seconds.

    ``checks``: providers are actively checked.
    """

    scale: float = 1.0
    checks: bool = True

    @property
    def upstream(self) -> Timeouts:
        """How long an upstream may take."""
        default = Timeouts()
        return Timeouts(*(self.scale * getattr(default, name) for name in Timeouts.__slots__))

    @property
    def check_interval(self) -> float:
        """From one active check to the next, while all is well."""
        return self.scale * HealthCheck().interval

    @property
    def provider_keys(self) -> str:
        """The keys that make a provider so; none where they are the defaults."""
        if self.scale == 1.0:
            return "" if self.checks else ", health_check: null"
        limits, breaker = self.upstream, BreakerSettings()
        times = ", ".join(f"{name}: {getattr(limits, name):.3f}s" for name in Timeouts.__slots__)
        first, longest = self.scale * breaker.open, self.scale * breaker.open_max
        check = f"{{interval: {self.check_interval:.3f}s, timeout: 2s}}" if self.checks else "null"
        return (
            f", timeouts: {{{times}}}"
            f", breaker: {{open: {first:.3f}s, open_max: {longest:.3f}s}}"
            f", health_check: {check}"
        )

    @property
    def server_keys(self) -> str:
        """The deadlines of calls that set none."""
        return f"deadline: {{unary: {120 * self.scale:.3f}s, stream: {600 * self.scale:.3f}s}}"


TRUE = Timers()
SHORT = Timers(1 / 12)
"""First token and idle 1.25 s, a unary call 10 s: not so short that a busy machine is taken for a fault."""


@dataclass
class Stage:
    """The router and what is around it."""

    wire: Wire
    timers: Timers
    primary: Upstream
    same: Upstream
    fallback: Upstream
    served: Served
    client: AsyncClient

    def all_well(self) -> None:
        """Make every upstream answer as it should, whatever came before."""
        self.primary.always(whole(self.wire, OF_PRIMARY))
        self.same.always(whole(self.wire, OF_SAME))
        self.fallback.always(whole(self.wire, OF_FALLBACK))

    @property
    def asked(self) -> Counter[str]:
        """How many requests for an answer each target's upstream has read; checks are none."""
        upstreams = {"a1": self.primary, "same1": self.same, "b1": self.fallback}
        return Counter(
            target
            for target, upstream in upstreams.items()
            for request in upstream.requests
            if request.method == "POST"
        )

    async def call(self, way: str, **options: Any) -> Answer:
        """Make one call: ``stream`` asks for the whole result of a stream, ``unary`` for an answer."""
        if way == "stream":
            return await self.client.stream_chat("Hi", **options).result()
        return await self.client.chat("Hi", **options)


@asynccontextmanager
async def stage(
    wire: Wire, timers: Timers, *, fallback_wire: Wire | None = None, more: str = ""
) -> AsyncIterator[Stage]:
    """Put the parts together.

    Route ``chat`` has the primary and the fallback; ``alone`` the primary; ``sized`` also a target between
    the two that is of the primary's size. ``chosen`` and ``spread`` are ``chat`` and ``sized`` with a
    fallback of their own and a strategy, whose first choice is the primary. ``more`` are further keys of all
    providers.
    """
    fallback_wire = fallback_wire or wire
    keys = timers.provider_keys + more
    async with Upstream() as primary, Upstream() as same, Upstream() as fallback:
        for upstream, speaks in ((primary, wire), (same, wire), (fallback, fallback_wire)):
            upstream.on(speaks.health_path, json_reply({"data": []}))
        text = f"""
            server: {{{timers.server_keys}}}
            providers:
              primary: {{{provider_keys(wire, primary)}{keys}}}
              same: {{{provider_keys(wire, same)}{keys}}}
              fallback: {{{provider_keys(fallback_wire, fallback)}{keys}}}
            targets:
              a1: {{provider: primary, model: primary, context_window: 8192}}
              same1: {{provider: same, model: same, context_window: 8192}}
              b1: {{provider: fallback, model: fallback, context_window: 32768}}
            routes:
              chat: {{targets: [a1, b1]}}
              alone: {{targets: [a1]}}
              sized: {{targets: [a1, same1, b1]}}
              chosen: {{targets: [a1], strategy: weighted, fallback: [b1]}}
              spread: {{targets: [{{target: a1, weight: 9}}, same1], strategy: weighted, fallback: [b1]}}
            telemetry: {{log: {{level: error}}}}
        """
        async with AsyncExitStack() as stack:
            served = await stack.enter_async_context(serving(dedent(text)))
            client = await stack.enter_async_context(AsyncClient(served.target))
            made = Stage(wire, timers, primary, same, fallback, served, client)
            made.all_well()
            yield made


@dataclass(frozen=True)
class Told:
    """What the caller of one call saw of it: ``answer``, or the ``error`` with which it failed."""

    took: float
    answer: Answer | None = None
    error: ModelRouterError | None = None

    @property
    def attempts(self) -> tuple[str, ...]:
        """Every try in words."""
        if self.error is not None:
            return tuple(f"{a.target} {a.outcome}" for a in self.error.attempts)
        assert self.answer is not None
        return tuple(f"{a.target} {_word(a.outcome)}" for a in self.answer.route.attempts)

    @property
    def usage(self) -> str:
        """Tokens in words."""
        if self.answer is None:
            return "-"
        usage = self.answer.usage
        return f"{usage.input_tokens} + {usage.output_tokens}{' (estimated)' if usage.estimated else ''}"


def _word(outcome: common_pb2.Attempt.Outcome) -> str:
    return common_pb2.Attempt.Outcome.Name(outcome).removeprefix("OUTCOME_").lower()


async def told(call: Any) -> Told:
    """Wait for a call, and tell what came of it."""
    began = time.monotonic()
    try:
        answer = await call
    except ModelRouterError as error:
        return Told(time.monotonic() - began, error=error)
    return Told(time.monotonic() - began, answer)


BY_TARGET = {"a1": OF_PRIMARY, "same1": OF_SAME, "b1": OF_FALLBACK}


def complaints_about(answer: Answer) -> list[str]:
    """Return what is wrong with an answer: it must be all that the target it names says, with its usage."""
    route, usage = answer.route, answer.usage
    owed = BY_TARGET.get(route.target)
    if owed is None:
        return [f"the answer names {route.target!r} as its target"]
    found = []
    if answer.text != owed.text:
        found.append(
            f"the text is not that of {route.target}: {answer.text[:40]!r} of {len(answer.text)} characters"
        )
    if answer.finish_reason != "stop":
        found.append(f"it finished with {answer.finish_reason}")
    if route.upstream_model != owed.model:
        found.append(f"it names the model {route.upstream_model!r}")
    if not usage.estimated and (usage.input_tokens, usage.output_tokens) != (INPUT_TOKENS, len(owed.words)):
        found.append(f"the usage is {usage.input_tokens} + {usage.output_tokens}")
    if usage.estimated and not usage.output_tokens:
        found.append("the estimated usage is nothing")
    return found


async def soon(true: Callable[[], bool], within: float = 2.0) -> bool:
    """Tell whether ``true`` becomes true within these seconds."""
    end = time.monotonic() + within
    while not true() and time.monotonic() < end:  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.005)
    return true()


async def together(*runs: Coroutine[Any, Any, None]) -> None:
    """Run all at once; where one fails, the others end with it, and in this test."""
    async with asyncio.TaskGroup() as group:
        for run in runs:
            group.create_task(run)
