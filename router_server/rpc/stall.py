"""A limit on each of many steps, at the price of one timer for all of them.

An ``asyncio.timeout`` around each message of a stream takes a fifth of the time that a token costs. Here a
step notes when it began, and a timer that fires once per limit looks at the note.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StalledError(Exception):
    """A step took longer than it may."""


class Steps:
    """The clock of the steps: set ``began`` to `now` before one, and to None after it."""

    __slots__ = ("_limit", "_scope", "_timer", "began", "now")

    def __init__(self, limit: float, scope: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time
        self.began: float | None = None
        self._limit = limit
        self._scope = scope
        self._timer = loop.call_later(limit, self._look)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self.now()
        due = (now if self.began is None else self.began) + self._limit
        if due <= now:
            self._scope.reschedule(now)
        else:
            self._timer = asyncio.get_running_loop().call_at(due, self._look)


@asynccontextmanager
async def each_within(limit: float) -> AsyncIterator[Steps]:
    """Give a clock for steps that may take ``limit`` seconds each.

    Raises:
        StalledError: a step took longer, and was cancelled.
    """
    scope = asyncio.timeout(None)
    try:
        async with scope:
            steps = Steps(limit, scope)
            try:
                yield steps
            finally:
                steps.stop()
    except TimeoutError:
        if not scope.expired():
            raise
        raise StalledError from None
