"""Whether an engine that says it is well does anything for those who wait.

Pure. Progress is anything that moved: a byte to one of our callers, or a counter of the engine's own. So a
long answer that is not streamed is no standstill. Refuses to know how either is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable


class StuckWatch:
    """Measures how long nothing has moved while there was something to do.

    Args:
        limit: seconds after which that is too long; None: never.
        clock: monotonic seconds.

    Attributes:
        limit: may change at any time.
    """

    def __init__(self, limit: float | None, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._clock = clock
        self._mark: Hashable = None
        self._since: float | None = None

    @property
    def watching(self) -> bool:
        """Tell whether there was anything to do at the last look."""
        return self._since is not None

    def seen(self, mark: Hashable, *, busy: bool) -> bool:
        """Take a look, and tell whether the engine is stuck.

        Args:
            mark: everything that moves with progress.
            busy: whether there is anything to do.
        """
        now = self._clock()
        if not busy:
            self._since = None
            return False
        if self._since is None or mark != self._mark:
            self._mark, self._since = mark, now
        return self.limit is not None and now - self._since >= self.limit

    def reset(self) -> None:
        """Forget what was seen: the engine is another."""
        self._since = None
