"""A limit on what the current task does: what `asyncio.timeout` is, at half its price.

``asyncio.timeout`` takes 27,000 instructions to be entered and left, of which its state machine is the
most; this takes 13,000, and 6,500 without a time. It is entered once.

To put it off takes no timer: a stream does so for each token, and a timer set and cancelled each time took a
tenth of what the token costs. The moment is noted, and the timer that there is, when it fires, looks at the
note, or asks who knows better.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Final, Self

_NEVER: Final = math.inf


class Cutoff:
    """A context that raises `TimeoutError` where it is cut off; leave it by the task that entered it.

    Args:
        seconds: after which it is cut off by itself; infinite: never.
    """

    __slots__ = ("_cancelling", "_fires", "_seconds", "_task", "_timer", "_when", "due")

    def __init__(self, seconds: float = _NEVER) -> None:
        self.due = False
        """True once it is cut off: whether a `TimeoutError` is this one's."""
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._when: float | None = None
        self._fires = _NEVER

    def cut(self) -> None:
        """End what runs inside, from whatever task."""
        if not self.due:
            self.due = True
            self._task.cancel()

    def when(self) -> float | None:
        """Return the moment at which it is cut off, by the loop's clock; None: never, or not yet begun."""
        return self._when

    def reschedule(self, when: float | None) -> None:
        """Cut it off at that moment instead; None: never."""
        self._when = when
        if when is not None and when < self._fires:
            self._set(when)

    def put_off(self, when: float) -> float:
        """Return the moment at which it is to be cut off, now that it would be: for those who know better."""
        return when

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires = when
        self._timer = self._task.get_loop().call_at(when, self._look)

    def _look(self) -> None:
        self._fires, self._timer = _NEVER, None
        if self._when is None:
            return
        now = self._task.get_loop().time()
        if self._when <= now:
            self._when = self.put_off(self._when)
        if self._when <= now:
            self.cut()
        else:
            self._set(self._when)

    def __enter__(self) -> Self:
        """Begin."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "only a task can be cut off"  # noqa: S101 - narrows the type
        self._task = task
        self._cancelling = task.cancelling()
        if self._seconds != _NEVER:
            self._when = self._fires = loop.time() + self._seconds
            self._timer = loop.call_later(self._seconds, self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End; a cancellation that nobody but this asked for becomes a `TimeoutError`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.due and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
