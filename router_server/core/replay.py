"""Answers under keys: one that is kept is given again, and one that is on its way is shared.

Where another process works on it, it is waited for. Failures are never kept, and shared within a process.
Refuses to know what is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from router_server.core.claim import Claim, Claims, Taken
from router_server.core.errors import Reason, RouterError, Violation
from router_server.core.flight import Flight, compacted
from router_server.core.observer import Reused
from router_server.core.packing import UnreadableError, pack, unpack
from router_server.core.shared import UnreachableError
from router_server.core.shelf import Shelf

LARGEST_ANSWER = 1024 * 1024
"""Bytes of an answer that is kept."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What is asked for.

    Attributes:
        key: of the answer.
        question: a digest of the whole of it.
        ttl: seconds for which its answer is kept.
        kept_as: what one that is kept is for who gets it again.
        terms: who pays, and how hard the router is to try; an answer on its way is shared by those with equal
            ones.
        alone: of all processes only one is to ask for it at a time.
    """

    key: str
    question: str
    ttl: float
    kept_as: Reused
    terms: str = ""
    alone: bool = False


@dataclass(frozen=True, slots=True)
class _Boarding:
    question: str
    flight: Flight
    claim: Claim | None


@dataclass(slots=True)
class Opening:
    """A flight that others find.

    Attributes:
        flight: it.
        landed: what is to be done once all of it came.
        claim: to be settled before anybody is asked; None: nobody else may ask.
        is_replay: it brings what is kept already.
    """

    flight: Flight
    landed: Callable[[Sequence[Any]], None]
    claim: Claim | None
    is_replay: bool = False


class Replays:
    """Gives answers again.

    Args:
        shelf: where they are kept.
        worth_keeping: tells whether an answer, all its events, is to be kept.
        clock: monotonic seconds, the event loop's.
        claims: of all processes that share the shelf; None: there is this one alone.
    """

    def __init__(
        self,
        shelf: Shelf,
        worth_keeping: Callable[[Sequence[Any]], bool],
        clock: Callable[[], float],
        claims: Claims | None = None,
    ) -> None:
        self._shelf = shelf
        self._claims = claims
        self._worth_keeping = worth_keeping
        self._clock = clock
        self._boarding: dict[tuple[str, str], _Boarding] = {}
        self._unawaited: set[asyncio.Task[None]] = set()

    @property
    def flights(self) -> Sequence[Flight]:
        """Those that may be joined now."""
        return [one.flight for one in self._boarding.values()]

    async def find(self, ticket: Ticket) -> Sequence[Any] | Flight | None:
        """Return the events of an answer that is kept, or one that is on its way, or None: there is neither.

        Raises:
            RouterError: INVALID_REQUEST where another question has the same key.
        """
        kept = await self._kept(ticket)
        if kept is not None:
            return kept
        boarding = await self._settled_boarding(ticket)
        if boarding is None:
            return None
        _check(ticket, boarding.question)
        return boarding.flight

    def open(self, ticket: Ticket, until: float) -> Opening:
        """Return a flight that others find from now on.

        Args:
            ticket: what it is to answer.
            until: the deadline of who asks.
        """
        name = ticket.key, ticket.terms
        claim = None
        if ticket.alone and self._claims is not None:
            claim = Claim(self._claims, ticket.key, ticket.question, self._run)

        def closed() -> None:
            if claim is not None:
                claim.close()
            if name in self._boarding and self._boarding[name].flight is flight:
                del self._boarding[name]

        def landed(events: Sequence[Any]) -> None:
            if opening.is_replay or not self._worth_keeping(events):
                flight.close()
                return
            # Nobody waits for that, but until it is done whoever asks finds the flight.
            self._run(self._keep(ticket, events)).add_done_callback(lambda _task: flight.close())

        flight = Flight(until, self._clock, closed)
        opening = Opening(flight, landed, claim)
        self._boarding[name] = _Boarding(ticket.question, flight, claim)
        return opening

    def taken(self, ticket: Ticket, taken: Taken) -> Sequence[Any] | None:
        """Return the events of an answer that was found elsewhere, or None: nobody can read it.

        Raises:
            RouterError: INVALID_REQUEST where another question has the same key.
        """
        if taken.answer is None:
            _check(ticket, taken.question)
            return None
        return _read(ticket, taken.answer)

    async def _settled_boarding(self, ticket: Ticket) -> _Boarding | None:
        """Return what is on its way; not another question that is about to be refused itself."""
        name = ticket.key, ticket.terms
        while (found := self._boarding.get(name)) is not None and found.question != ticket.question:
            if found.claim is None or found.claim.heard.is_set():
                break
            await found.claim.heard.wait()
        return found

    async def _kept(self, ticket: Ticket) -> Sequence[Any] | None:
        try:
            data = await self._shelf.get(ticket.key)
        except UnreachableError:
            return None
        return None if data is None else _read(ticket, data)

    async def _keep(self, ticket: Ticket, events: Sequence[Any]) -> None:
        data = pack((ticket.question, events))
        if len(data) > LARGEST_ANSWER:
            data = pack((ticket.question, compacted(events)))
        if len(data) > LARGEST_ANSWER:
            return
        try:
            await self._shelf.put(ticket.key, data, ticket.ttl)
        except UnreachableError:
            return

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what nobody waits for, with a patience of its own: the call's may be used up."""
        task = asyncio.create_task(work, context=Context())
        self._unawaited.add(task)
        task.add_done_callback(self._unawaited.discard)
        return task


def _read(ticket: Ticket, data: bytes) -> Sequence[Any] | None:
    try:
        question, events = unpack(data)
    except UnreadableError:
        return None
    _check(ticket, question)
    return tuple(events)


def _check(ticket: Ticket, question: str) -> None:
    if ticket.question != question:
        raise RouterError(
            Reason.INVALID_REQUEST,
            "Another request has this idempotency_key. Use one key for one request and its retries.",
            violations=(Violation("idempotency_key", "was used with another request"),),
        )
