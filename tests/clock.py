"""A loop whose time is virtual: sleeping costs nothing, and the same test gives the same times every run.

For code whose only waiting is on timers, tasks and futures of its own loop. Not for sockets or threads:
a read that would have been answered a millisecond later looks here like time to move on.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class NothingScheduledError(RuntimeError):
    """Every task waits, and no timer will ever wake one: a real loop would hang here."""


class _VirtualSelector(selectors.SelectSelector):
    """Never waits: the time that a real selector would have slept is added to ``now``."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise NothingScheduledError("every task is waiting, and no timer is set that could wake one")
        self.now += max(0.0, timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps to its next timer; ``time()`` starts at 0."""

    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run_in_virtual_time(main: Coroutine[Any, Any, _T]) -> _T:
    """Run ``main`` to its end in a `VirtualTimeLoop` of its own.

    Raises:
        NothingScheduledError: ``main`` waits for something that nobody will ever do.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def virtual_time(test: Callable[_P, Coroutine[Any, Any, _T]]) -> Callable[_P, _T]:
    """Decorate an async test, which then runs in virtual time; its (synchronous) fixtures still work."""

    @functools.wraps(test)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return run_in_virtual_time(test(*args, **kwargs))

    return run
