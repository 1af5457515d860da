"""Answers under keys: one that is kept is given again, and one that is on its way is shared.

Each flight is a task of its own, which ends when nobody waits for it any more; so whoever asked first may
leave, and the others get the answer. Failures are shared and never kept. Refuses to know what is asked.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Protocol

from router_server.core.errors import Reason, RouterError, Violation
from router_server.core.packing import UnreadableError, pack, unpack
from router_server.core.results import Heartbeat, StreamEvent
from router_server.core.shared import UnreachableError

LARGEST_ANSWER = 1024 * 1024
"""Bytes of an answer that is kept."""

_OF_ITS_FIRST_CALLER = frozenset({Reason.DEADLINE_EXCEEDED, Reason.STREAM_INTERRUPTED})
"""Failures that say more of who asked first than of what was asked: the others ask again."""


class Shelf(Protocol):
    """Where answers are kept; each method may raise `UnreachableError`."""

    async def get(self, key: str) -> bytes | None:
        """Return what is kept, or None."""

    async def put(self, key: str, value: bytes, ttl: float) -> Any:
        """Keep ``value`` for ``ttl`` seconds."""


class MemoryShelf:
    """Keeps answers in this process; the one that was used longest ago goes first.

    Args:
        max_bytes: of all answers together.
        clock: monotonic seconds.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._bytes = 0

    @property
    def size(self) -> int:
        """How many bytes are kept."""
        return self._bytes

    async def get(self, key: str) -> bytes | None:
        """Return what is kept, or None."""
        value, ends = self._kept.get(key, (None, 0.0))
        if value is None or ends <= self._clock():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return value

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep ``value`` for ``ttl`` seconds, unless others need the room."""
        self._drop(key)
        self._kept[key] = value, self._clock() + ttl
        self._bytes += len(value)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        value, _ends = self._kept.pop(key, (b"", 0.0))
        self._bytes -= len(value)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What is asked for.

    Attributes:
        key: of the answer.
        question: a digest of the whole of it.
        ttl: seconds for which its answer is kept.
        terms: how hard the router is to try; an answer on its way is shared by those with equal ones.
    """

    key: str
    question: str
    ttl: float
    terms: str = ""

    @property
    def flight(self) -> tuple[str, str]:
        """What those who share an answer on its way have in common."""
        return self.key, self.terms


@dataclass(eq=False, slots=True)
class _Flight:
    """An answer on its way: what has come of it so far."""

    ticket: Ticket
    events: list[Any] = field(default_factory=list)
    over: bool = False
    error: BaseException | None = None
    waiting: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def of_its_first_caller(self) -> bool:
        """Tell whether it failed before its first event, and in a way that others need not share."""
        error = self.error
        return not self.events and isinstance(error, RouterError) and error.reason in _OF_ITS_FIRST_CALLER

    def tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


class Replays:
    """Gives answers again.

    Args:
        shelf: where they are kept.
        worth_keeping: tells whether an answer, all its events, is to be kept.
    """

    def __init__(self, shelf: Shelf, worth_keeping: Callable[[list[Any]], bool]) -> None:
        self._shelf = shelf
        self._worth_keeping = worth_keeping
        self._flights: dict[tuple[str, str], _Flight] = {}
        self._keeping: set[asyncio.Task[None]] = set()

    async def events(
        self, ticket: Ticket, ask: Callable[[], AsyncGenerator[Any, None]]
    ) -> AsyncGenerator[tuple[Any, bool], None]:
        """Yield the events of the answer, each with whether it was asked for by somebody else, or before.

        Raises:
            RouterError: the answer failed; INVALID_REQUEST where another question has the same key.
        """
        kept = await self._kept(ticket)
        if kept is not None:
            for event in kept:
                yield event, True
            return
        flight = self._flights.get(ticket.flight)
        if flight is not None:
            _same(ticket, flight.ticket.question)
            async with aclosing(self._joined(flight)) as events:
                async for event in events:
                    yield event, True
            if not flight.of_its_first_caller:
                return
        flight = self._take_off(ticket, ask)
        async with aclosing(self._followed(flight)) as events:
            async for event in events:
                yield event, False

    async def one(self, ticket: Ticket, ask: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
        """Return an answer that is one value, and whether it was asked for by somebody else, or before.

        Raises:
            RouterError: see `events`.
        """

        async def asking() -> AsyncGenerator[Any, None]:
            yield await ask()

        # To its end, and not to its first value alone: whoever leaves early ends the flight.
        async with aclosing(self.events(ticket, asking)) as events:
            (answer,) = [pair async for pair in events]
        return answer

    async def _kept(self, ticket: Ticket) -> tuple[Any, ...] | None:
        try:
            data = await self._shelf.get(ticket.key)
            question, events = (None, ()) if data is None else unpack(data)
        except (UnreachableError, UnreadableError):
            return None
        if question is None:
            return None
        _same(ticket, question)
        return tuple(events)

    def _take_off(self, ticket: Ticket, ask: Callable[[], AsyncGenerator[Any, None]]) -> _Flight:
        flight = self._flights[ticket.flight] = _Flight(ticket)
        flight.task = asyncio.create_task(self._fly(flight, ask), name=f"flight {ticket.key}")
        return flight

    async def _fly(self, flight: _Flight, ask: Callable[[], AsyncGenerator[Any, None]]) -> None:
        try:
            async with aclosing(ask()) as events:
                async for event in events:
                    flight.events.append(event)
                    flight.tell()
        except Exception as error:  # noqa: BLE001 - whoever waits gets it, and raises it where it is seen
            flight.error = error
        except asyncio.CancelledError:
            flight.error = asyncio.CancelledError()
            raise
        else:
            self._keep(flight.ticket, flight.events)
        finally:
            self._landed(flight)
            flight.over = True
            flight.tell()

    async def _joined(self, flight: _Flight) -> AsyncGenerator[Any, None]:
        """Follow a flight that somebody else began; one that failed by that one ends without a word."""
        try:
            async with aclosing(self._followed(flight)) as events:
                async for event in events:
                    yield event
        except RouterError:
            if not flight.of_its_first_caller:
                raise

    async def _followed(self, flight: _Flight) -> AsyncGenerator[Any, None]:
        seen = 0
        flight.waiting += 1
        try:
            while True:
                while seen < len(flight.events):
                    seen += 1
                    yield flight.events[seen - 1]
                if flight.over:
                    break
                await flight.news.wait()
            if flight.error is not None:
                raise flight.error
        finally:
            flight.waiting -= 1
            if not flight.waiting and flight.task is not None and not flight.over:
                self._landed(flight)
                flight.task.cancel()
                await asyncio.wait({flight.task})

    def _landed(self, flight: _Flight) -> None:
        if self._flights.get(flight.ticket.flight) is flight:
            del self._flights[flight.ticket.flight]

    def _keep(self, ticket: Ticket, events: list[StreamEvent]) -> None:
        kept = [event for event in events if not isinstance(event, Heartbeat)]
        if not self._worth_keeping(kept):
            return
        data = pack((ticket.question, kept))
        if len(data) > LARGEST_ANSWER:
            return
        # With a patience of its own: the call's may be used up, and nobody waits for this.
        task = asyncio.create_task(self._put(ticket, data), context=Context())
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def _put(self, ticket: Ticket, data: bytes) -> None:
        try:
            await self._shelf.put(ticket.key, data, ticket.ttl)
        except UnreachableError:
            return


def _same(ticket: Ticket, question: str) -> None:
    if ticket.question != question:
        raise RouterError(
            Reason.INVALID_REQUEST,
            "Another request has this idempotency_key. Use one key for one request and its retries.",
            violations=(Violation("idempotency_key", "was used with another request"),),
        )
