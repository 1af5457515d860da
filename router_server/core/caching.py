"""A router that gives answers again: those of routes that cache, and those that a caller names by a key.

A cached answer is that of the same question, word for word, asked by the same caller unless the route shares
them. An idempotency key names one call of one caller: its retries get the same answer. Refuses to know where
answers are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from router_server.core.claim import Claim, Claims
from router_server.core.deadline import deadline_of
from router_server.core.errors import RouterError
from router_server.core.flight import Flight, Wishes
from router_server.core.observer import Observer, Reused
from router_server.core.packing import digest
from router_server.core.record import replace
from router_server.core.repeat import Repeat, start_of
from router_server.core.replay import Opening, Replays, Ticket
from router_server.core.results import (
    ChatResult,
    EmbedResult,
    Finished,
    Invocation,
    ModelInfo,
    Reset,
    StreamEvent,
)
from router_server.core.router import RouterSettings
from router_server.core.service import CallRouter
from router_server.core.shelf import Shelf
from router_server.core.types import ChatRequest, EmbedRequest, FinishReason, Operation, Routing

Request = ChatRequest | EmbedRequest

_WHOLE = frozenset({FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS})
"""How an answer ends that is worth giving again."""

_Events = AsyncGenerator[Any, None]


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What a route caches.

    Attributes:
        ttl: seconds.
        across_keys: for all callers together.
        models: names who answers. An answer of others is never given: of embeddings it would be a vector in
            another space.
    """

    ttl: float
    across_keys: bool = False
    models: str = ""


class Names(Protocol):
    """Knows what routes are called."""

    def canonical(self, model: str) -> str:
        """Return a route's own name for whatever callers may name it, or that again."""

    def shown(self, model: str) -> str:
        """Return its name in telemetry; one name for all that are no routes."""


class CachingRouter:
    """Answers from what is kept where that may be, and asks ``router`` otherwise.

    Args:
        router: answers.
        names: of routes.
        caches: of routes, by their own names.
        idempotency_ttl: seconds for which the answer to an idempotency key is kept; 0: keys mean nothing.
        shelf: where answers are kept.
        name_key: from what it is, and a digest, to the key on the shelf.
        observer: is told of the calls that ``router`` does not see.
        clock: monotonic seconds, the event loop's.
        settings: the deadlines of callers who give none.
        claims: of idempotency keys, by all processes that share the shelf; None: there is this one alone.
    """

    def __init__(
        self,
        router: CallRouter,
        names: Names,
        caches: Mapping[str, CacheSettings],
        *,
        idempotency_ttl: float,
        shelf: Shelf,
        name_key: Callable[[str, str], str],
        observer: Observer,
        clock: Callable[[], float],
        settings: RouterSettings,
        claims: Claims | None = None,
    ) -> None:
        self._router = router
        self._names = names
        self._caches = caches
        self._idempotency_ttl = idempotency_ttl
        self._name_key = name_key
        self._observer = observer
        self._clock = clock
        self._settings = settings
        self.replays = Replays(shelf, _worth_keeping, clock, claims)

    def chat(self, request: ChatRequest, invocation: Invocation) -> Coroutine[Any, Any, ChatResult]:
        """Return the whole answer.

        Raises:
            RouterError: see `CallRouter`; INVALID_REQUEST where an idempotency key names another request.
        """
        ticket = self._ticket(Operation.CHAT, request, invocation)
        if ticket is None:
            return self._router.chat(request, invocation)

        async def ask(asked: Invocation) -> _Events:
            yield await self._router.chat(request, asked)

        return _only(self._answer(Operation.CHAT, ticket, ask, request, invocation))

    def embed(self, request: EmbedRequest, invocation: Invocation) -> Coroutine[Any, Any, EmbedResult]:
        """Return one vector per input, in order.

        Raises:
            RouterError: see `chat`.
        """
        ticket = self._ticket(Operation.EMBED, request, invocation)
        if ticket is None:
            return self._router.embed(request, invocation)

        async def ask(asked: Invocation) -> _Events:
            yield await self._router.embed(request, asked)

        return _only(self._answer(Operation.EMBED, ticket, ask, request, invocation))

    def stream(self, request: ChatRequest, invocation: Invocation) -> AsyncGenerator[StreamEvent, None]:
        """Yield the events of one answer; one that is given again comes as it came, without its pauses.

        Raises:
            RouterError: see `chat`.
        """
        ticket = self._ticket(Operation.STREAM, request, invocation)
        if ticket is None:
            return self._router.stream(request, invocation)
        # Each who waits for it has heartbeats and pauses of their own.
        plain = replace(
            request, routing=replace(request.routing, heartbeat_interval=None, coalesce_window=0.0)
        )

        def ask(asked: Invocation) -> _Events:
            return self._router.stream(plain, asked)

        return self._answer(Operation.STREAM, ticket, ask, request, invocation)

    def models(self) -> tuple[ModelInfo, ...]:
        """Return the routes that callers may name."""
        return self._router.models()

    async def _answer(
        self,
        operation: Operation,
        ticket: Ticket,
        ask: Callable[[Invocation], _Events],
        request: Request,
        invocation: Invocation,
    ) -> _Events:
        began = self._clock()
        wishes = self._wishes(operation, request, invocation, began)
        found = await self.replays.find(ticket)

        def repeat(reused: Reused) -> Repeat:
            start = start_of(operation, self._names.shown(request.model), request, invocation)
            return Repeat(start, reused, began, self._observer, self._clock)

        if found is None:
            flight = self._begin(ticket, ask, repeat, invocation, wishes)
            async with aclosing(flight.follow(wishes)) as events:
                async for event in events:
                    yield event
            return
        if isinstance(found, Flight):
            reused, events = Reused.JOINED, found.follow(wishes)
        else:
            reused, events = ticket.kept_as, _each(found)
        async with aclosing(_repeated(repeat(reused), events)) as given:
            async for event in given:
                yield event

    def _begin(
        self,
        ticket: Ticket,
        ask: Callable[[Invocation], _Events],
        repeat: Callable[[Reused], Repeat],
        invocation: Invocation,
        wishes: Wishes,
    ) -> Flight:
        opening = self.replays.open(ticket, wishes.until)
        flight, claim = opening.flight, opening.claim
        ask_now = partial(ask, replace(invocation, deadline=flight.deadline))
        answer = ask_now() if claim is None else self._claimed(ticket, opening, claim, ask_now, repeat)
        task = flight.begin(answer, opening.landed, f"flight {invocation.call_id}")
        if invocation.lasts is not None:
            invocation.lasts(task)
        return flight

    async def _claimed(
        self,
        ticket: Ticket,
        opening: Opening,
        claim: Claim,
        ask: Callable[[], _Events],
        repeat: Callable[[Reused], Repeat],
    ) -> _Events:
        """Yield the answer that another process has got meanwhile, or ask."""
        try:
            taken = await claim.settled(opening.flight.deadline, self._clock)
        except (RouterError, asyncio.CancelledError):
            with repeat(ticket.kept_as):
                raise
        kept = None if taken is None else self.replays.taken(ticket, taken)
        claim.heard.set()
        opening.is_replay = kept is not None
        answer = ask() if kept is None else _repeated(repeat(ticket.kept_as), _each(kept))
        async with aclosing(answer):
            async for event in answer:
                yield event

    def _wishes(self, operation: Operation, request: Request, invocation: Invocation, now: float) -> Wishes:
        settings, routing = self._settings, request.routing
        streaming = operation is Operation.STREAM
        default = settings.stream_deadline if streaming else settings.unary_deadline
        until = deadline_of(now, invocation.timeout, default).at
        return Wishes(until, routing.heartbeat_interval, routing.coalesce_window if streaming else 0.0)

    def _ticket(self, operation: Operation, request: Request, invocation: Invocation) -> Ticket | None:
        if not (request.idempotency_key or self._caches):
            return None
        route = self._names.canonical(request.model)
        whose = "" if invocation.principal is None else invocation.principal.subject
        if request.idempotency_key and self._idempotency_ttl > 0:
            # What a retry may change is how it is delivered, and by when; not what is asked.
            asked = replace(request, model=route, routing=_what_is_asked(request.routing))
            question = digest(operation, route, asked)
            key = self._name_key("idempotent", digest(whose, route, request.idempotency_key))
            return Ticket(key, question, self._idempotency_ttl, Reused.REPLAY, alone=True)
        cache = self._caches.get(route)
        if cache is None or not _may_be_cached(request):
            return None
        asked = replace(
            request,
            model=route,
            routing=_what_is_asked(request.routing),
            labels={},
            user_id="",
            idempotency_key="",
        )
        question = digest("" if cache.across_keys else whose, operation, route, cache.models, asked)
        terms = _terms(request.routing, invocation)
        return Ticket(self._name_key("cached", question), question, cache.ttl, Reused.CACHE, terms)


def _what_is_asked(routing: Routing) -> Routing:
    return Routing(allowed_targets=routing.allowed_targets)


def _terms(routing: Routing, invocation: Invocation) -> str:
    """Return what decides whether a fault ends a call: nobody's may end by what another one forbade.

    Nor by another one's budget, which is spent.
    """
    principal = invocation.principal
    payer = "" if principal is None or principal.budget is None else principal.subject
    return digest(routing.allow_failover, routing.stream_recovery, routing.first_token_timeout, payer)


def _may_be_cached(request: Request) -> bool:
    asked = request.routing.allow_cache
    if asked is not None:
        return asked
    return isinstance(request, EmbedRequest) or request.generation.temperature == 0


def _worth_keeping(events: Sequence[Any]) -> bool:
    """Tell whether an answer is whole, and came in one piece."""
    if not events or any(isinstance(event, Reset) for event in events):
        return False
    match events[-1]:
        case ChatResult(answer=answer):
            return answer.finish_reason in _WHOLE
        case Finished(finish_reason=reason):
            return reason in _WHOLE
        case last:
            return isinstance(last, EmbedResult)


async def _repeated(repeat: Repeat, events: _Events) -> _Events:
    async with aclosing(events):
        with repeat:
            async for event in events:
                yield repeat.given(event)


async def _each(kept: Sequence[Any]) -> _Events:
    for event in kept:
        yield event


async def _only(events: _Events) -> Any:
    # To its end, and not to its first value alone: whoever leaves early ends the flight.
    async with aclosing(events):
        (answer,) = [event async for event in events]
    return answer
