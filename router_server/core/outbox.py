"""The buffer between the task that reads an upstream and the caller who takes the events.

Bounded in bytes: once it is full the writer waits for `room`, so that the upstream of a slow reader is read
no further. Deltas that are buffered together leave as one. What comes by itself to a reader who can take it
at once is not buffered, and wakes no task. Refuses to know what the events mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NoReturn

from router_server.core.flag import Flag
from router_server.core.results import Give, StreamEvent
from router_server.core.stream import merge
from router_server.core.types import Delta

LIMIT = 256 * 1024
"""Bytes of one stream that may be buffered."""

TAKEN = 64 * 1024
"""Bytes that leave at once: what has left is buffered a second time on its way to the caller."""

_OVERHEAD = 64
"""Bytes that a delta costs beside its text, so that a million empty ones are bounded too."""


class ReaderStalledError(Exception):
    """The caller took nothing for too long."""


class Outbox:
    """A queue of events with one writer and one reader.

    Args:
        stall: seconds after which a reader that takes nothing is given up.
        limit: bytes that may be buffered.

    Attributes:
        filled: set while there is something to take, be it the end.
    """

    def __init__(self, stall: float, limit: int = LIMIT) -> None:
        self._stall = stall
        self._limit = limit
        self._events: list[StreamEvent] = []
        self._size = 0
        self._closed = False
        self._error: BaseException | None = None
        self._give: Give | None = None
        self.filled = Flag()
        self._room: Flag | None = None
        self._hurry = Flag()

    @property
    def size(self) -> int:
        """Bytes buffered now."""
        return self._size

    def add(self, events: Sequence[StreamEvent]) -> bool:
        """Add ``events``, however full the buffer is; tell whether there is room for more."""
        if events and not self._given(events):
            self._events.extend(events)
            for event in events:
                self._size += size_of(event)
            self.filled.set()
        return self._size < self._limit

    @property
    def full(self) -> bool:
        """Tell whether who adds is to wait for `room`."""
        return self._size >= self._limit

    async def room(self, patience: float) -> None:
        """Wait while the buffer is full, at most ``patience`` seconds.

        Raises:
            ReaderStalledError: the reader took nothing within its time.
            TimeoutError: ``patience`` ended first.
        """
        self._hurry.set()
        self._room = room = Flag()
        try:
            async with asyncio.timeout(min(self._stall, patience)):
                await room.wait()
        except TimeoutError:
            if patience < self._stall:
                raise
            raise ReaderStalledError from None
        finally:
            self._room = None

    def close(self, error: BaseException | None = None) -> None:
        """Nothing follows; the reader gets what is buffered, then ``error`` if there is one."""
        self._closed = True
        self._error = error
        self.filled.set()
        self._hurry.set()

    async def hand_over(self, give: Give | None) -> None:
        """Wait until it is filled; what comes meanwhile by itself is given to ``give``, if that takes it."""
        self._give = give
        try:
            await self.filled.wait()
        finally:
            self._give = None

    async def wait(self, seconds: float) -> bool:
        """Wait until it is filled; tell whether it is after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self.filled.wait()
        except TimeoutError:
            return False
        return True

    async def linger(self, seconds: float) -> None:
        """Wait for more to be merged, at most ``seconds``; not at all once the stream is over or full."""
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            return

    def take(self) -> list[StreamEvent]:
        """Return what is buffered, or the first 64 KiB of it, merged; empty: the stream is over.

        Raises:
            BaseException: what the outbox was closed with, after everything was taken.
        """
        if self._size > TAKEN:
            events = self._first()
        else:
            events, self._events, self._size = self._events, [], 0
        if self._room is not None:
            self._room.set()
        if not (self._closed or self._events):
            self.filled.is_set = self._hurry.is_set = False
        if len(events) == 1:
            return events
        if not events and self._error is not None:
            self._fail()
        return merged_events(events)

    def discard(self) -> None:
        """Forget everything: the reader takes no more."""
        self._events, self._size, self._error = [], 0, None

    def _given(self, events: Sequence[StreamEvent]) -> bool:
        if self._give is None or self._events or len(events) > 1:
            return False
        try:
            return self._give(events[0])
        except Exception:  # noqa: BLE001 - no fault of the writer's: the reader meets it again, taking the event
            return False

    def _fail(self) -> NoReturn:
        # An error knows the frames that it came through: were it kept here, or in one of them, each would
        # keep the other, and all that the call held, until the garbage collector came by.
        error, self._error = self._error, None
        assert error is not None  # noqa: S101 - narrows the type
        try:
            raise error
        finally:
            del error

    def _first(self) -> list[StreamEvent]:
        events = self._events
        size = count = 0
        while count < len(events) and size < TAKEN:
            size += size_of(events[count])
            count += 1
        self._events, self._size = events[count:], self._size - size
        return events[:count]


def size_of(event: StreamEvent) -> int:
    """Return the bytes that an event costs while it is buffered."""
    if isinstance(event, Delta):
        text = len(event.text) if event.text.isascii() else 4 * len(event.text)
        return _OVERHEAD * (1 + len(event.logprobs)) + text + len(event.opaque_state)
    return _OVERHEAD


def merged_events(events: Sequence[StreamEvent]) -> list[StreamEvent]:
    """Return ``events`` with neighbouring deltas as one, where that says the same."""
    merged: list[StreamEvent] = []
    run: list[Delta] = []
    for event in events:
        if isinstance(event, Delta):
            run.append(event)
            continue
        merged.extend(merge(run))
        run = []
        merged.append(event)
    merged.extend(merge(run))
    return merged
