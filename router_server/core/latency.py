"""How long one target takes to answer: a sliding window of what was measured, and its quantiles.

Pure, clock injected; the quantiles are exact, since a few hundred numbers are quickly sorted in. Refuses to
know what a time is used for.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable

WINDOW = 600.0
"""Seconds after which a time is forgotten: what a provider was like ten minutes ago says little of now."""

MOST = 512
"""How many times are kept: enough for the 99th percentile, and sorted in within microseconds."""

_FEWEST = 20
"""Below this nothing is said of any quantile."""


class Latencies:
    """The last answer times of one target, in seconds.

    Args:
        clock: monotonic seconds.
        window: seconds after which a time is forgotten.
        most: how many are kept.
    """

    def __init__(self, clock: Callable[[], float], window: float = WINDOW, most: int = MOST) -> None:
        self._clock = clock
        self._window = window
        self._most = most
        self._arrived: deque[tuple[float, float]] = deque()
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """Take note of an answer that took ``seconds``."""
        self._forget()
        self._arrived.append((self._clock(), seconds))
        insort(self._sorted, seconds)
        if len(self._arrived) > self._most:
            self._drop()

    def quantile(self, share: float) -> float | None:
        """Return the time within which ``share`` of the answers came, or None: too few are known.

        With fewer than 1 / (1 - ``share``) times the quantile is only their maximum, and tells nothing.
        """
        self._forget()
        count = len(self._sorted)
        if count < max(_FEWEST, round(1 / (1 - share))):
            return None
        return self._sorted[math.ceil(share * count) - 1]

    def _forget(self) -> None:
        since = self._clock() - self._window
        while self._arrived and self._arrived[0][0] < since:
            self._drop()

    def _drop(self) -> None:
        _at, seconds = self._arrived.popleft()
        del self._sorted[bisect_left(self._sorted, seconds)]
