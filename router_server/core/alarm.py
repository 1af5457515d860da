"""A time limit that is cheap to put off: one timer for the many waits of a stream.

To set a timer for each token, and to cancel it when the token comes, takes a tenth of what the token costs.
Here the moment is only noted, and one timer, which fires once in the length of a wait, looks at the note.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Alarm:
    """What ``asyncio.timeout(seconds)`` is, for those who reschedule it all the time.

    Args:
        seconds: from now on.
    """

    __slots__ = ("_fires", "_loop", "_scope", "_timer", "_when")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        self._when: float | None = self._loop.time() + seconds
        self._timer: asyncio.TimerHandle | None = None
        self._fires: float | None = None

    def when(self) -> float | None:
        """Return the moment at which it ends what runs inside; None: it will not."""
        return self._when

    def expired(self) -> bool:
        """Tell whether it has ended what ran inside."""
        return self._scope.expired()

    def reschedule(self, when: float | None) -> None:
        """End what runs inside at that moment, in place of the one before; None: not at all."""
        self._when = when
        if when is not None and (self._fires is None or when < self._fires):
            self._set(when)

    async def __aenter__(self) -> Self:
        """Begin."""
        await self._scope.__aenter__()
        self.reschedule(self._when)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Be over; raise TimeoutError where it was this that ended what ran inside."""
        if self._timer is not None:
            self._timer.cancel()
        await self._scope.__aexit__(kind, error, trace)

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires = when
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        when, self._fires, self._timer = self._when, None, None
        if when is None:
            return
        if when <= self._loop.time():
            self._scope.reschedule(when)
        else:
            self._set(when)
