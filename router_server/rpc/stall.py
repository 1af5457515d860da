"""A limit on each of many steps, at the price of one timer for all of them.

A timer around each message of a stream takes a fifth of the time that a token costs, and one for each stream
0.7 KiB while it is open. Here a step notes when it began, and one timer looks at all notes.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

from router_server.core.cutoff import Cutoff

_COARSENESS: Final = 1 / 100
"""Of the limit: looks are no closer together, so that a step may take as much longer."""


class StalledError(Exception):
    """A step took longer than it may."""


class Steps(Cutoff):
    """The clock of one stream's steps, each of which lasts until a future is done.

    Left, it raises `StalledError` where a step took too long, and was cancelled.
    """

    __slots__ = ("_watch", "began", "now", "step")

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.now = asyncio.get_running_loop().time
        self.began = 0.0
        self.step: asyncio.Future[None] | None = None
        self._watch = watch

    def begin(self, step: asyncio.Future[None]) -> None:
        """A step begins now, and is over once ``step`` is done."""
        self.began, self.step = self.now(), step

    def __enter__(self) -> Self:
        """Begin to be watched."""
        super().__enter__()
        self._watch.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Be watched no more."""
        self._watch.discard(self)
        try:
            super().__exit__(kind, error, trace)
        except TimeoutError:
            raise StalledError from None


class Watch:
    """Looks after the steps of all streams.

    Args:
        limit: seconds that one step may take.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._all: set[Steps] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, steps: Steps) -> None:
        """Watch these too."""
        self._all.add(steps)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.limit, self._look)

    def discard(self, steps: Steps) -> None:
        """Watch these no more."""
        self._all.discard(steps)
        if not self._all and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        oldest = now
        for steps in self._all:
            if steps.step is None or steps.step.done():
                continue
            if steps.began + self.limit <= now:
                steps.cut()
            else:
                oldest = min(oldest, steps.began)
        due = max(oldest + self.limit, now + self.limit * _COARSENESS)
        self._timer = loop.call_at(due, self._look)
