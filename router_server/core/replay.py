"""Answers under keys: one that is kept is given again, and one that is on its way is shared.

Failures are shared and never kept. Refuses to know what is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any

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
    """

    key: str
    question: str
    ttl: float
    kept_as: Reused
    terms: str = ""


@dataclass(frozen=True, slots=True)
class _Boarding:
    question: str
    flight: Flight


class Replays:
    """Gives answers again.

    Args:
        shelf: where they are kept.
        worth_keeping: tells whether an answer, all its events, is to be kept.
        clock: monotonic seconds, the event loop's.
    """

    def __init__(
        self, shelf: Shelf, worth_keeping: Callable[[Sequence[Any]], bool], clock: Callable[[], float]
    ) -> None:
        self._shelf = shelf
        self._worth_keeping = worth_keeping
        self._clock = clock
        self._boarding: dict[tuple[str, str], _Boarding] = {}
        self._keeping: set[asyncio.Task[None]] = set()

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
        boarding = self._boarding.get((ticket.key, ticket.terms))
        if boarding is None:
            return None
        _check(ticket, boarding.question)
        return boarding.flight

    def open(self, ticket: Ticket, until: float) -> tuple[Flight, Callable[[Sequence[Any]], None]]:
        """Return a flight that others find from now on, and what is to be done once it has landed.

        Args:
            ticket: what it is to answer.
            until: the deadline of who asks.
        """
        name = ticket.key, ticket.terms

        def closed() -> None:
            if name in self._boarding and self._boarding[name].flight is flight:
                del self._boarding[name]

        def landed(events: Sequence[Any]) -> None:
            if not self._worth_keeping(events):
                flight.close()
                return
            # Nobody waits for that, but until it is done whoever asks finds the flight. With a patience of
            # its own: the call's may be used up.
            keeping = asyncio.create_task(self._keep(ticket, events), context=Context())
            self._keeping.add(keeping)
            keeping.add_done_callback(self._keeping.discard)
            keeping.add_done_callback(lambda _task: flight.close())

        flight = Flight(until, self._clock, closed)
        self._boarding[name] = _Boarding(ticket.question, flight)
        return flight, landed

    async def _kept(self, ticket: Ticket) -> Sequence[Any] | None:
        try:
            data = await self._shelf.get(ticket.key)
            question, events = (None, ()) if data is None else unpack(data)
        except (UnreachableError, UnreadableError):
            return None
        if question is None:
            return None
        _check(ticket, question)
        return tuple(events)

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


def _check(ticket: Ticket, question: str) -> None:
    if ticket.question != question:
        raise RouterError(
            Reason.INVALID_REQUEST,
            "Another request has this idempotency_key. Use one key for one request and its retries.",
            violations=(Violation("idempotency_key", "was used with another request"),),
        )
