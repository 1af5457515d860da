"""A router that gives answers again: those of routes that cache, and those that a caller names by a key.

A cached answer is that of the same question, word for word, asked by the same caller unless the route shares
them. An idempotency key names one call of one caller: its retries get the same answer. Refuses to know where
answers are kept.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from router_server.core.packing import digest
from router_server.core.record import replace
from router_server.core.replay import Replays, Shelf, Ticket
from router_server.core.results import (
    ChatResult,
    EmbedResult,
    Finished,
    Invocation,
    ModelInfo,
    Reset,
    Started,
    StreamEvent,
    Trail,
)
from router_server.core.service import CallRouter
from router_server.core.types import ChatRequest, EmbedRequest, FinishReason, Routing, Usage

Request = ChatRequest | EmbedRequest
_Result = TypeVar("_Result", ChatResult, EmbedResult)

_WHOLE = frozenset({FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS})
"""How an answer ends that is worth giving again."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What a route caches: for how many seconds, and whether for all callers together."""

    ttl: float
    across_keys: bool = False


class CachingRouter:
    """Answers from what is kept where that may be, and asks ``router`` otherwise.

    Args:
        router: answers.
        canonical: gives a route's own name for whatever callers may name it, or that again.
        caches: of routes, by their own names.
        idempotency_ttl: seconds for which the answer to an idempotency key is kept; 0: keys mean nothing.
        shelf: where answers are kept.
        name_key: from what it is, and a digest, to the key on the shelf.
    """

    def __init__(
        self,
        router: CallRouter,
        canonical: Callable[[str], str],
        caches: Mapping[str, CacheSettings],
        *,
        idempotency_ttl: float,
        shelf: Shelf,
        name_key: Callable[[str, str], str],
    ) -> None:
        self._router = router
        self._canonical = canonical
        self._caches = caches
        self._idempotency_ttl = idempotency_ttl
        self._name_key = name_key
        self._replays = Replays(shelf, _worth_keeping)

    def chat(self, request: ChatRequest, invocation: Invocation) -> Coroutine[Any, Any, ChatResult]:
        """Return the whole answer.

        Raises:
            RouterError: see `CallRouter`; INVALID_REQUEST where an idempotency key names another request.
        """
        ticket = self._ticket("chat", request, invocation)
        if ticket is None:
            return self._router.chat(request, invocation)
        return self._one(ticket, partial(self._router.chat, request, invocation), request, invocation)

    def embed(self, request: EmbedRequest, invocation: Invocation) -> Coroutine[Any, Any, EmbedResult]:
        """Return one vector per input, in order.

        Raises:
            RouterError: see `chat`.
        """
        ticket = self._ticket("embed", request, invocation)
        if ticket is None:
            return self._router.embed(request, invocation)
        return self._one(ticket, partial(self._router.embed, request, invocation), request, invocation)

    def stream(self, request: ChatRequest, invocation: Invocation) -> AsyncGenerator[StreamEvent, None]:
        """Yield the events of one answer; one that is given again comes as it came, without its pauses.

        Raises:
            RouterError: see `chat`.
        """
        ticket = self._ticket("stream", request, invocation)
        if ticket is None:
            return self._router.stream(request, invocation)
        return self._replayed(ticket, request, invocation)

    def models(self) -> tuple[ModelInfo, ...]:
        """Return the routes that callers may name."""
        return self._router.models()

    async def _one(
        self, ticket: Ticket, ask: Callable[[], Awaitable[_Result]], request: Request, invocation: Invocation
    ) -> _Result:
        result: _Result
        result, again = await self._replays.one(ticket, ask)
        return _again(result, request, invocation) if again else result

    async def _replayed(
        self, ticket: Ticket, request: ChatRequest, invocation: Invocation
    ) -> AsyncGenerator[StreamEvent, None]:
        events = self._replays.events(ticket, lambda: self._router.stream(request, invocation))
        async with aclosing(events):
            async for event, again in events:
                yield _event_again(event, request, invocation) if again else event

    def _ticket(self, what: str, request: Request, invocation: Invocation) -> Ticket | None:
        if not (request.idempotency_key or self._caches):
            return None
        route = self._canonical(request.model)
        whose = "" if invocation.principal is None else invocation.principal.subject
        if request.idempotency_key and self._idempotency_ttl > 0:
            # What a retry may change is how it is delivered, and by when; not what is asked.
            asked = replace(request, model=route, routing=_what_is_asked(request.routing))
            question = digest(what, route, asked)
            key = self._name_key("idempotent", digest(whose, route, request.idempotency_key))
            return Ticket(key, question, self._idempotency_ttl)
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
        question = digest("" if cache.across_keys else whose, what, route, asked)
        return Ticket(self._name_key("cached", question), question, cache.ttl, _terms(request.routing))


def _what_is_asked(routing: Routing) -> Routing:
    return Routing(allowed_targets=routing.allowed_targets)


def _terms(routing: Routing) -> str:
    """Return what decides whether a fault ends a call: nobody's may end by what another one forbade."""
    return digest(routing.allow_failover, routing.stream_recovery, routing.first_token_timeout)


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


def _again(result: _Result, request: Request, invocation: Invocation) -> _Result:
    return replace(
        result,
        call_id=invocation.call_id,
        model=request.model,
        usage=_free(result.usage),
        trail=_without_asking(result.trail),
    )


def _event_again(event: StreamEvent, request: Request, invocation: Invocation) -> StreamEvent:
    match event:
        case Started(trail=trail):
            return Started(invocation.call_id, request.model, _without_asking(trail))
        case Finished(usage=usage, trail=trail):
            return replace(event, usage=_free(usage), trail=_without_asking(trail))
        case Reset(trail=trail):
            return replace(event, trail=_without_asking(trail))
        case _:
            return event


def _free(usage: Usage) -> Usage:
    """Return what the answer took when it was made; giving it again costs nothing."""
    return replace(usage, cost_nano_usd=0)


def _without_asking(trail: Trail) -> Trail:
    return replace(trail, attempts=(), cache_hit=True)
