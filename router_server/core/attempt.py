"""One try of one target: breaker, permit, timers, and what the result means for the target.

Everything that an attempt takes it gives back in one ``finally``, under cancellation at any await. Refuses
to know what comes after it: `plan` and `router` do.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TypeVar, cast

from router_server.core.adaptive import Place
from router_server.core.breaker import Pass
from router_server.core.call import Call
from router_server.core.cancelling import is_being_cancelled
from router_server.core.consequences import failed, went_well
from router_server.core.course import Step
from router_server.core.cutoff import Cutoff
from router_server.core.deadline import Timer, Timers
from router_server.core.engine_view import NOT_READY
from router_server.core.errors import (
    RULES,
    AttemptSummary,
    BreakerEffect,
    Outcome,
    Phase,
    UpstreamError,
)
from router_server.core.hedge import HEDGE_LOST
from router_server.core.limiter import Limiter, Permit
from router_server.core.measures import Measures
from router_server.core.observer import UNOBSERVED, AttemptObservation, AttemptRecord, AttemptStart
from router_server.core.options import options_for
from router_server.core.own_limit import OwnLimit
from router_server.core.provider import UpstreamChat, UpstreamEmbed
from router_server.core.quotas import Reservation
from router_server.core.reading import Reading, Reads, Sink
from router_server.core.target import Target
from router_server.core.types import ChatRequest, EmbedRequest, Json, Usage

T = TypeVar("T")

_OK = Outcome.OK
"""What nearly every attempt comes to: to look a member up in its enum takes 900 instructions."""
_INTERNAL_ERROR = UpstreamError(Outcome.UNAVAILABLE, "internal_error", blameless=True)
"""What a bug makes of an attempt; only read, never raised."""


class Attempt:
    """One try of one target.

    Args:
        call: whose try it is.
        target: who is asked.
        step: the plan's word on it.
        check_soon: asks for an active check of the target, whose failure is then held against it.
        now: when it begins.

    Attributes:
        call: as above.
        target: as above.
        measures: what it has learnt so far.
        usage: with its cost, once the attempt is over.
        record: once the attempt is over.
    """

    def __init__(
        self,
        call: Call,
        target: Target,
        step: Step,
        check_soon: Callable[[Target, BreakerEffect], None],
        now: float,
    ) -> None:
        self.call = call
        self.target = target
        self.measures = Measures()
        upstream, (host, port) = target.upstream, target.address
        self._engine = upstream.engine
        self._step, self._check_soon = step, check_soon
        self._began = now
        self._start = AttemptStart(
            call_id=call.start.call_id,
            operation=call.operation,
            route=call.start.route,
            target=target.configured,
            provider=target.provider,
            kind=upstream.kind,
            model=target.settings.model,
            number=call.asked + 1,
            server_address=host,
            server_port=port,
            request=call.request,
            hedge=step.hedge,
            endpoint=upstream.endpoint,
        )
        self.usage: Usage | None = None
        self.record: AttemptRecord | None = None
        self._observation: AttemptObservation = UNOBSERVED
        self._connect_limit = 0.0
        self._lost = False
        self._place: Place | None = None
        self._reserved: Reservation | None = None
        self._timers = Timers(target.settings.timeouts, call.deadline, step.others_left)

    async def run(self, work: Callable[[Attempt], Awaitable[T]]) -> T:
        """Return what ``work`` returns, done while the target's permit is held.

        Raises:
            UpstreamError: the attempt failed; breaker, cooling, record and permit are settled.
        """
        if self._engine is not None and not self._engine.admits():
            raise UpstreamError(Outcome.CIRCUIT_OPEN, NOT_READY)
        leave = self.target.breaker.enter(force=self._step.last_resort)
        if leave is None:
            raise UpstreamError(Outcome.CIRCUIT_OPEN, "breaker_open")
        self.call.asked += 1
        if (followers := self.call.deadline.followers) is not None:
            followers.add(self._timers)
        self._observation = self.call.observation.attempt(self._start)
        failure: UpstreamError | None = _INTERNAL_ERROR
        upstream, permit = self.target.upstream, None
        try:
            permit = upstream.limiter.take(self.target.gate) or await self._permit(upstream.limiter)
            if upstream.own_limit is not None:
                self._reserved = await self._reservation(upstream.own_limit)
            if upstream.adaptive is not None:
                self._place = upstream.adaptive.place()
            self.measures.permitted_at = now = self.call.clock()
            self._connect_limit = self._timers.begin(now)
            result = await work(self)
            failure = None
        except UpstreamError as error:
            failure = error
            raise
        except asyncio.CancelledError:
            if not is_being_cancelled():
                # Nobody called this attempt off: the provider's own library gave up on something.
                failure = UpstreamError(Outcome.UNAVAILABLE, "cancelled_by_provider")
                raise failure from None
            failure = UpstreamError(Outcome.CANCELLED, HEDGE_LOST if self._lost else "cancelled")
            raise
        finally:
            if permit is not None:
                permit.release()
            self._settle(failure, leave)
            del failure  # it knows this frame: each would keep the other until the garbage collector came by
        return result

    def lose(self) -> None:
        """Another attempt has answered: the cancellation that follows is no wish of the caller."""
        self._lost = True

    def chat(self, request: ChatRequest, continuation: str | None = None) -> UpstreamChat:
        """Return the upstream's request, with the target's defaults and caps applied."""
        settings = self.target.settings
        return UpstreamChat(
            model=settings.model,
            request=settings.applied_to(request),
            options=self._options(),
            headers=self._headers(),
            connect_timeout=self._connect_limit,
            priority=request.routing.priority,
            continuation=continuation,
        )

    def embed(self, request: EmbedRequest) -> UpstreamEmbed:
        """Return the upstream's request."""
        return UpstreamEmbed(
            model=self.target.settings.model,
            request=request,
            options=self._options(),
            headers=self._headers(),
            connect_timeout=self._connect_limit,
            priority=request.routing.priority,
        )

    async def within_unary(self, work: Awaitable[T]) -> T:
        """Return what ``work`` returns, within the unary limit.

        Raises:
            UpstreamError: TIMEOUT.
        """
        timers, configured = self._timers, self.target.settings.timeouts.unary
        limit = timers.unary()
        timers.scope = cutoff = Cutoff(limit)
        timers.latest = timers.since + configured
        try:
            with cutoff:
                return await work
        except TimeoutError:
            if not cutoff.due:
                raise
            timer, ran = Timer(limit, configured), max(limit, self.call.clock() - timers.since)
            raise self._timed_out(timer, ran, Phase.FIRST_TOKEN, "unary_timeout") from None
        finally:
            timers.scope = None

    async def read(self, stream: Reads, sink: Sink) -> None:
        """Hand everything that ``stream`` yields to ``sink``, within the first-token and idle limits.

        Raises:
            UpstreamError: TIMEOUT, or what the stream raises.
        """
        request = cast("ChatRequest", self.call.request)
        reasoning, wished = request.generation.reasoning_effort, request.routing.first_token_timeout
        timer = self._timers.first_token(reasoning is not None, wished)
        reading = Reading(self._timers, timer, self.call.deadline, self.measures, self._engine)
        latest = reading.since + min(timer.configured, wished or timer.configured)
        self._timers.scope, self._timers.latest = reading, latest
        try:
            async with aclosing(stream):
                await reading.run(stream, sink, self._saw_first_token)
        except TimeoutError:
            if not reading.due:
                raise
            raise self._late(reading, timer) from None
        finally:
            self._timers.scope = None

    def summary(self) -> AttemptSummary:
        """Return the attempt as its caller sees it while it is still open."""
        return AttemptSummary(
            self.target.configured,
            self.target.provider,
            None,
            self.call.clock() - self._began,
            self.measures.time_to_first_token,
        )

    def _permit(self, limiter: Limiter) -> Awaitable[Permit]:
        return limiter.acquire(
            self.target.gate,
            priority=self.call.request.routing.priority,
            size=self.call.prompt_tokens,
            max_wait=self._patience(limiter),
        )

    def _reservation(self, limit: OwnLimit) -> Awaitable[Reservation]:
        cap = self.target.settings.max_output_tokens
        return limit.reserve(self.call.request, self.call.prompt_tokens, cap)

    def _patience(self, limiter: Limiter) -> float:
        """Return how long a permit is waited for, in seconds."""
        if self._step.hedge or self._step.waited or limiter.has_room(self.target.gate):
            return 0.0
        # What an engine takes to start or wake has nothing to do with how long a full queue is worth it.
        patience = math.inf if limiter.paused else limiter.limits.queue_timeout
        return self._timers.queue(patience, self.call.clock())

    def _saw_first_token(self) -> None:
        if self._place is not None:
            waited = self.measures.time_to_first_token or 0.0
            self._place.began(self.target.pace, self.call.prompt_tokens, waited)

    def _late(self, reading: Reading, first: Timer) -> UpstreamError:
        ran = self.call.clock() - reading.since
        if not reading.idle:
            return self._timed_out(first, ran, Phase.FIRST_TOKEN, "first_token_timeout")
        until = min(reading.idle, self.call.deadline.at)
        timer = Timer(until - reading.since, reading.idle - reading.since)
        return self._timed_out(timer, ran, Phase.STREAM, "idle_timeout")

    def _timed_out(self, timer: Timer, ran: float, phase: Phase, reason: str) -> UpstreamError:
        return UpstreamError(Outcome.TIMEOUT, reason, phase=phase, blameless=not timer.blames_upstream(ran))

    def _options(self) -> Json:
        ours = self.target.settings.provider_options
        return {**ours, **self._callers_options()} if self.call.request.provider_options else ours

    def _callers_options(self) -> Json:
        upstream = self.target.upstream
        return options_for(self.call.request.provider_options, upstream.kind, upstream.name)

    def _headers(self) -> Mapping[str, str]:
        return self._observation.headers if self.target.upstream.trace_context else {}

    def _is_blameless(self, failure: UpstreamError) -> bool:
        if failure.phase is Phase.CONNECT:
            timer = Timer(self._connect_limit, self.target.settings.timeouts.connect)
            return not timer.blames_upstream(timer.limit)
        if failure.outcome is Outcome.MALFORMED and self._callers_options():
            # What a caller puts into the request by itself may make of the answer what we cannot read.
            return True
        return failure.blameless

    def _settle(self, failure: UpstreamError | None, leave: Pass) -> None:
        call, target = self.call, self.target
        if failure is None:
            if self._engine is not None:
                self._engine.progress += 1
            went_well(target, leave)
        else:
            effect = self._effect(failure)
            failed(target, failure, effect, leave, self._check_soon)
        if self._place is not None:
            self._place.ended(_OK if failure is None else failure.outcome)
        if call.deadline.followers is not None:
            call.deadline.followers.discard(self._timers)
        self.record = record = self._record(failure)
        call.attempted(record)
        if self._reserved is not None:
            self._reserved.settle(requests=1, tokens=record.usage.tokens if record.usage else 0)
        self._observation.ended(record)

    def _effect(self, failure: UpstreamError) -> BreakerEffect:
        effect, name = RULES[failure.outcome].breaker, self.target.name
        if effect is not BreakerEffect.FAILURE:
            return effect
        if self._is_blameless(failure) or name in self.call.blamed:
            return BreakerEffect.NONE
        self.call.blamed |= {name}
        return effect

    def _record(self, failure: UpstreamError | None) -> AttemptRecord:
        measures = self.measures
        usage = measures.usage if failure is None else measures.consumed(failure, self.call.prompt_tokens)
        now = self.call.clock()
        self.usage = None if usage is None else self.priced(usage)
        return AttemptRecord(
            start=self._start,
            outcome=_OK if failure is None else failure.outcome,
            duration=now - self._began,
            queue_wait=(measures.permitted_at or now) - self._began,
            time_to_first_token=measures.time_to_first_token,
            time_per_token=measures.time_per_token(usage),
            error_reason="" if failure is None else failure.reason,
            status=None if failure is None else failure.status,
            usage=self.usage,
            reported_model=measures.reported_model,
            finish_reason=measures.finish_reason,
            answer=measures.answer,
            engine=measures.engine,
        )

    def priced(self, usage: Usage) -> Usage:
        """Return ``usage`` with its cost, where the price is known."""
        cost = self.target.settings.cost(usage)
        return usage if cost is None else usage.costing(cost)
