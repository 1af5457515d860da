"""An answer on its way, and those who wait for it.

It is read once, in a task of its own, and each who waits gets all of it in their own time: until their own
deadline, with heartbeats and pauses as they asked for. The flight's deadline is the latest of theirs, and it
ends when nobody waits any more. Refuses to know what is asked, and what becomes of the answer.

What is buffered is bounded. The upstream is read no further than 64 KiB ahead of the quickest reader, as
for a reader who is alone. Of an answer of up to 1 MiB all is held, which is what may be kept of it anyway: so
a slow reader holds up nobody, and a late one finds the beginning. Of a larger one is held what somebody has
not taken yet; nobody may join it, and once 1 MiB waits for the slowest reader, all wait for that one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from router_server.core.deadline import MovingDeadline
from router_server.core.errors import Phase
from router_server.core.outbox import TAKEN, merged_events, size_of
from router_server.core.record import Record
from router_server.core.results import Heartbeat
from router_server.core.verdict import deadline_error

AHEAD = TAKEN
"""Bytes that are read beyond what the quickest reader has taken; the outbox before it has its own bound."""

HELD = 1024 * 1024
"""Bytes that are held for readers who have not taken them, and of an answer that may be kept."""

_RUN = 64
"""Deltas that become one where those who read them have done so."""


class Wishes(Record, frozen=True):
    """How one caller wants to be given an answer.

    Attributes:
        until: the moment of its deadline, on the flight's clock.
        heartbeat: seconds between signs of life, once something came; None: none.
        linger: seconds for which deltas may be held back, to be merged.
    """

    until: float
    heartbeat: float | None = None
    linger: float = 0.0


@dataclass(eq=False, slots=True)
class _Reader:
    """One who waits: how many of the events that are held it has seen, and how many bytes it took in all."""

    until: float
    seen: int = 0
    taken: int = 0
    began: bool = False


class Flight:
    """One answer on its way.

    Args:
        until: the deadline of who asks, on ``clock``.
        clock: monotonic seconds, the event loop's.
        closed: called once nobody may join any more.

    Attributes:
        deadline: of all who wait.
        over: nothing more comes.
    """

    def __init__(self, until: float, clock: Callable[[], float], closed: Callable[[], None]) -> None:
        self.deadline = MovingDeadline(until)
        self.over = False
        self._clock = clock
        self._closed = closed
        self._events: list[Any] = []
        self._size = 0
        self._total = 0
        self._whole = True
        self._error: BaseException | None = None
        self._readers: list[_Reader] = []
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return len(self._readers)

    @property
    def held(self) -> int:
        """Bytes of it that are held."""
        return self._size

    def begin(
        self, events: AsyncGenerator[Any, None], landed: Callable[[Sequence[Any]], None], name: str
    ) -> asyncio.Task[None]:
        """Read ``events`` from now on; ``landed`` is given all where all came, and has to close it."""
        self._task = asyncio.create_task(self._fly(events, landed), name=name)
        return self._task

    def close(self) -> None:
        """Let nobody join any more."""
        closed, self._closed = self._closed, _nothing
        closed()

    async def follow(self, wishes: Wishes) -> AsyncGenerator[Any, None]:
        """Yield the answer from its beginning.

        Raises:
            RouterError: it failed; DEADLINE_EXCEEDED where this reader's own time is over.
        """
        reader = self._board(wishes)
        heartbeat = None
        try:
            while True:
                if reader.seen == len(self._events) and not self.over:
                    if not await self._news_for(reader, heartbeat):
                        yield Heartbeat()
                    continue
                if wishes.linger > 0 and not self.over:
                    await self._linger(wishes.linger)
                events = self._take(reader)
                if not events:
                    break
                heartbeat = wishes.heartbeat
                for event in events:
                    yield event
            if self._error is not None:
                raise self._error
        finally:
            await self._leave(reader)

    async def _fly(self, events: AsyncGenerator[Any, None], landed: Callable[[Sequence[Any]], None]) -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    self._add(event)
                    while self._is_ahead():
                        self._room.clear()
                        await self._room.wait()
        except Exception as error:  # noqa: BLE001 - whoever waits gets it, and raises it where it is seen
            self._error = error
        except asyncio.CancelledError:
            self._error = asyncio.CancelledError()
            raise
        finally:
            self.over = True
            if self._error is None and self._whole:
                landed(self._events)
            else:
                self.close()
            self._tell()

    def _add(self, event: Any) -> None:
        size = size_of(event)
        self._events.append(event)
        self._size += size
        self._total += size
        if self._whole and self._size > HELD:
            self._compact()
        if self._whole and self._size > HELD:
            self._whole = False
            self.close()
            self._forget()
        self._tell()

    def _is_ahead(self) -> bool:
        if not self._readers:
            return False
        taken = [reader.taken for reader in self._readers]
        return self._total - max(taken) >= AHEAD or (not self._whole and self._total - min(taken) >= HELD)

    def _board(self, wishes: Wishes) -> _Reader:
        reader = _Reader(wishes.until)
        self._readers.append(reader)
        if self.deadline.put_off(wishes.until):
            self._tell()
        return reader

    async def _leave(self, reader: _Reader) -> None:
        self._readers.remove(reader)
        if self._readers:
            self._forget()
            self._room.set()
            return
        self._error = None  # it knows the frames of those who were told, and they know this
        if self._task is not None and not self.over:
            self.close()
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _news_for(self, reader: _Reader, heartbeat: float | None) -> bool:
        """Wait for something to take; tell whether there is, or a sign of life is due."""
        left = reader.until - self._clock()
        if left <= 0 and self.deadline.at > reader.until:
            raise deadline_error(Phase.STREAM if reader.began else Phase.FIRST_TOKEN)
        # Whose deadline is that of the flight is told by the flight itself, which knows more of it.
        limits = [limit for limit in (heartbeat, left if left > 0 else None) if limit is not None]
        try:
            async with asyncio.timeout(min(limits, default=None)):
                await self._news.wait()
        except TimeoutError:
            return heartbeat is None or left <= heartbeat
        return True

    async def _linger(self, seconds: float) -> None:
        until = self._clock() + seconds
        while not self.over and (left := until - self._clock()) > 0 and not self._is_ahead():
            try:
                async with asyncio.timeout(left):
                    await self._news.wait()
            except TimeoutError:
                return

    def _take(self, reader: _Reader) -> Sequence[Any]:
        first = last = reader.seen
        size = 0
        while last < len(self._events) and size < TAKEN:
            size += size_of(self._events[last])
            last += 1
        events = merged_events(self._events[first:last])
        reader.seen, reader.taken, reader.began = last, reader.taken + size, reader.began or bool(events)
        self._forget()
        self._room.set()
        return events

    def _forget(self) -> None:
        """Let go of what all have seen, where the beginning is of no use any more."""
        if self._whole or not self._readers:
            return
        count = min(reader.seen for reader in self._readers)
        if count:
            self._replace(count, [])

    def _compact(self) -> None:
        """Make few events of many that all have seen."""
        count = min((reader.seen for reader in self._readers), default=0)
        self._replace(count, compacted(self._events[:count]))

    def _replace(self, count: int, events: Sequence[Any]) -> None:
        self._size -= sum(map(size_of, self._events[:count])) - sum(map(size_of, events))
        self._events[:count] = events
        for reader in self._readers:
            reader.seen -= count - len(events)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def compacted(events: Sequence[Any]) -> Sequence[Any]:
    """Return events that say the same, and are fewer."""
    runs = [merged_events(events[at : at + _RUN]) for at in range(0, len(events), _RUN)]
    return [event for run in runs for event in run]


def _nothing() -> None:
    """Nobody is to be told twice."""
