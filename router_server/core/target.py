"""Upstreams and targets as they live in a running router: settings, state, and nothing else.

Refuses to decide anything: `plan` does, from the views that are taken here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from router_server.core.adaptive import Adaptive
from router_server.core.breaker import Breaker, BreakerSettings, BreakerState
from router_server.core.budget import Budget
from router_server.core.cooldown import Cooldown
from router_server.core.deadline import Timeouts
from router_server.core.engine_view import EngineView
from router_server.core.errors import Outcome
from router_server.core.latency import Latencies
from router_server.core.limiter import Gate, Limiter
from router_server.core.load import Load
from router_server.core.own_limit import OwnLimit
from router_server.core.pace import Pace
from router_server.core.plan import Candidate, Demand
from router_server.core.provider import Capability, Provider
from router_server.core.record import replace
from router_server.core.status import CheckReport
from router_server.core.types import (
    ChatRequest,
    EmbedRequest,
    Generation,
    Json,
    Operation,
    Usage,
)


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How often a provider is asked whether it is well, and how long it may take to answer; seconds."""

    interval: float = 60.0
    timeout: float = 5.0


@dataclass(eq=False, slots=True)
class Upstream:
    """A provider in service, or one of its endpoints: ``endpoint`` then says which, and is empty otherwise.

    ``healthy`` is the last word of the active check, None where nothing is known; ``checked`` tells whether
    it was ever asked. ``adaptive`` moves the limiter's limit, where the configuration says so, and
    ``own_limit`` bounds what it is sent in a minute; ``engine`` is the provider's own process, where the
    router runs one. ``scope`` says which replicas share what they learn of it: None: none, it is this
    process's own; empty: all; otherwise those on one machine, to which the word belongs.
    """

    name: str
    kind: str
    provider: Provider = field(repr=False)
    limiter: Limiter = field(repr=False)
    endpoint: str = ""
    adaptive: Adaptive | None = field(default=None, repr=False)
    engine: EngineView | None = field(default=None, repr=False)
    own_limit: OwnLimit | None = field(default=None, repr=False)
    retries: int = 1
    trace_context: bool = True
    required: bool = False
    check: HealthCheck | None = field(default_factory=HealthCheck)
    healthy: bool | None = None
    checked: bool = False
    last_check: CheckReport | None = None
    last_failed_check: CheckReport | None = None
    load: Load = field(default_factory=Load, repr=False)
    budget: Budget | None = None
    scope: str | None = None

    @property
    def unique_name(self) -> str:
        """The provider's name, and the endpoint's where there are several."""
        return f"{self.name}@{self.endpoint}" if self.endpoint else self.name

    def shared_name(self, name: str) -> str:
        """Return the name that all have for ``name`` who share what they learn of this upstream."""
        return f"{name}~{self.scope}" if self.scope else name

    @property
    def inflight(self) -> int:
        """How many calls it has of us."""
        return self.limiter.inflight

    @property
    def busyness(self) -> float:
        """About how many requests it has, those that wait here for a place included."""
        return self.load.estimate(self.limiter.inflight) + self.limiter.queued

    @property
    def ready(self) -> bool:
        """Tell whether a server that requires this provider may be ready."""
        if self.engine is not None and not self.engine.at_call:
            return False
        return self.check is None or (self.checked and self.healthy is not False)


def no_price(_usage: Usage) -> int | None:
    """Return None: the price is not known."""
    return None


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """What the configuration says of one target.

    ``cost`` returns the nano-USD of a usage, or None where the price is unknown. ``provider_options`` are
    sent with every request; the caller's win over them.
    """

    name: str
    model: str
    capabilities: frozenset[Capability]
    timeouts: Timeouts = field(default_factory=Timeouts)
    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    max_concurrency: int | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    embedding_space: str = ""
    provider_options: Json = field(default_factory=dict, repr=False)
    cost: Callable[[Usage], int | None] = field(default=no_price, compare=False)

    def output_limit(self, generation: Generation) -> int | None:
        """Return how many tokens an answer may have: the caller's wish, within the target's cap."""
        cap, wish = self.max_output_tokens, generation.max_output_tokens
        if wish is None or cap is None:
            return cap if wish is None else wish
        return min(wish, cap)

    def applied_to(self, request: ChatRequest) -> ChatRequest:
        """Return ``request`` with the target's defaults and caps; itself where they change nothing."""
        if self.max_output_tokens is None and self.temperature is None:
            return request
        generation = request.generation
        limit, temperature = self.output_limit(generation), generation.temperature
        if temperature is None:
            temperature = self.temperature
        if limit == generation.max_output_tokens and temperature == generation.temperature:
            return request
        return replace(
            request, generation=replace(generation, max_output_tokens=limit, temperature=temperature)
        )


def _jitter() -> float:
    return random.uniform(0.9, 1.1)  # noqa: S311 - spreads probes, guards nothing


class Target:
    """A provider's model with its breaker, its rest, its gate and its pace: the unit of failover.

    ``answer_times`` are for hedging: until the first token of a stream, or the whole of another answer.
    ``name`` tells endpoints of one target apart; `configured` is what the configuration calls it.
    """

    __slots__ = (
        "_at_its_best",
        "address",
        "answer_times",
        "breaker",
        "configured",
        "cooldown",
        "gate",
        "name",
        "pace",
        "provider",
        "settings",
        "upstream",
    )

    def __init__(
        self,
        settings: TargetSettings,
        upstream: Upstream,
        clock: Callable[[], float],
        *,
        jitter: Callable[[], float] = _jitter,
        on_change: Callable[[Target, BreakerState, BreakerState], None] = lambda _t, _before, _after: None,
    ) -> None:
        self.settings = settings
        self.upstream = upstream
        self.configured = settings.name
        self.provider = upstream.name
        self.address = upstream.provider.address
        self.name = f"{settings.name}@{upstream.endpoint}" if upstream.endpoint else settings.name
        self.gate = Gate(settings.max_concurrency)
        self.cooldown = Cooldown(clock)
        self.breaker = Breaker(settings.breaker, clock, jitter, lambda b, a: on_change(self, b, a))
        self.pace = Pace(clock)
        self.answer_times = {operation: Latencies(clock) for operation in Operation}
        self._at_its_best = self._view()

    def inherit(self, before: Target) -> None:
        """Take over what ``before`` has learnt, and the places that it has given out."""
        self.gate = before.gate
        self.cooldown = before.cooldown
        self.pace = before.pace
        self.answer_times = before.answer_times
        if self.settings.breaker == before.settings.breaker:
            self.breaker = before.breaker

    @property
    def endpoints(self) -> tuple[Target, ...]:
        """Whatever serves it: itself."""
        return (self,)

    @property
    def serving(self) -> bool:
        """Tell whether calls go there by choice, and would not have to wait for its engine."""
        return self.takes_calls and (self.upstream.engine is None or self.upstream.engine.ready)

    @property
    def takes_calls(self) -> bool:
        """Tell whether calls go there by choice."""
        return self._blocked is None

    @property
    def available(self) -> bool:
        """Tell whether a call would go there now: it takes calls, and does not rest after a rate limit."""
        return self.takes_calls and self.cooldown.remaining <= 0

    @property
    def ready_in(self) -> float:
        """Seconds that it is left alone now, after a rate limit or by its breaker; 0: it may be asked."""
        return max(self.cooldown.remaining, self.breaker.ready_in)

    @property
    def free(self) -> bool:
        """Tell whether a call would be served there at once, and is no probe of whether it would."""
        closed = self.breaker.state is BreakerState.CLOSED
        room = self.upstream.limiter.has_room(self.gate) and not self.upstream.load.crowded
        return self.available and closed and room

    @property
    def has_room(self) -> bool:
        """Tell whether a call would be given a place at once."""
        return self.upstream.limiter.has_room(self.gate)

    @property
    def is_full(self) -> bool:
        """Tell whether a call could not even wait for a place."""
        limiter = self.upstream.limiter
        return limiter.queued >= limiter.limits.max_queue and not self.has_room

    @property
    def load(self) -> int:
        """How many calls it serves, and how many wait for it."""
        return self.gate.inflight + self.gate.queued

    @property
    def fullness(self) -> float:
        """Calls that its provider has, running and waiting, for each place there is."""
        return self.upstream.busyness / max(1, self.upstream.limiter.max_concurrency)

    @property
    def _blocked(self) -> Outcome | None:
        if self.cooldown.benched is not None:
            return self.cooldown.benched
        if not self.breaker.admits or self.upstream.healthy is False:
            return Outcome.CIRCUIT_OPEN
        if self.upstream.engine is not None and self.upstream.engine.blocked:
            return Outcome.CIRCUIT_OPEN
        return None

    def candidate(self, demand: Demand) -> Candidate:
        """Return the target as a plan sees it now, for this call."""
        request = demand.request
        dimensions = request.dimensions if type(request) is EmbedRequest else None
        if dimensions is None and self._is_unimpaired():
            return self._at_its_best
        self.breaker.wanted = True
        return self._view(dimensions, self.cooldown.remaining, self._blocked, self.breaker.ready_in)

    def _is_unimpaired(self) -> bool:
        # Nearly always so. Asked in one piece, 200 targets cost 0.5 µs each in place of 1.5.
        upstream = self.upstream
        return (
            self.breaker.closed
            and not self.cooldown.rests()
            and upstream.healthy is not False
            and (upstream.engine is None or not upstream.engine.blocked)
        )

    def _view(
        self,
        dimensions: int | None = None,
        cooling: float = 0,
        blocked: Outcome | None = None,
        ready_in: float = 0,
    ) -> Candidate:
        settings = self.settings
        return Candidate(
            target=self.name,
            group=settings.name if self.upstream.endpoint else "",
            capabilities=settings.capabilities,
            context_window=settings.context_window,
            space=settings.embedding_space or f"{settings.model}/{dimensions or 'default'}",
            cooling=cooling,
            blocked=blocked,
            ready_in=ready_in,
            retries=self.upstream.retries,
        )
