"""Adaptive concurrency: how many calls at once a provider is sent, learned from what it does with them.

Additive increase, multiplicative decrease, as TCP finds the capacity of a path (RFC 5681): one place more
for every round trip in which all places were taken and all went well, three tenths fewer where the provider
refuses (429) or its first tokens come late. Pure, clock injected. Refuses to know what a call is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median

from router_server.core.errors import Outcome
from router_server.core.limiter import Limiter

_DECREASE = 0.7
"""What remains of the places: that of CUBIC (RFC 9438, 4.6), and of the AWS SDKs' adaptive retry mode."""

_SMALLEST_ROUND = 20
"""First tokens by which a round is judged at least: the median of 20 has a standard error of 20 % where the
times spread by a factor of two."""

_TOLERANCE = 2.0
"""How many times later than usual the first tokens of a round must come to be a sign of overload. Netflix's
concurrency-limits tolerates 1.5 of its mean; prompts differ in length more than requests there do."""

_MEMORY = 3_600.0
"""Seconds for which rounds are remembered: an hour, so that a busy quarter does not become the usual."""

_MOST_ROUNDS = 512
_FEWEST_ROUNDS = 5
"""Rounds before which nothing is usual."""

_QUIETEST = 10
"""One tenth of the rounds were as quick as the usual, or quicker: TCP Vegas and BBR take the minimum, which
one round of short prompts would spoil here, and a mean would follow a slow overload."""


class Pace:
    """Whether the first tokens of one target come later than they used to, judged in rounds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._round: list[float] = []
        self._medians: deque[tuple[float, float]] = deque(maxlen=_MOST_ROUNDS)

    @property
    def usual(self) -> float | None:
        """The time to first token of a quiet round, in seconds; None where too few rounds are known."""
        since = self._clock() - _MEMORY
        while self._medians and self._medians[0][0] < since:
            self._medians.popleft()
        if len(self._medians) < _FEWEST_ROUNDS:
            return None
        return sorted(seconds for _at, seconds in self._medians)[len(self._medians) // _QUIETEST]

    def slow(self, seconds: float, places: int) -> bool:
        """Take note of a time to first token; tell whether it ends a round that was slow.

        A round is one first token for each of ``places``: about one round trip of a provider in full use.
        """
        self._round.append(seconds)
        if len(self._round) < max(_SMALLEST_ROUND, places):
            return False
        usual, now = self.usual, median(self._round)
        self._medians.append((self._clock(), now))
        self._round.clear()
        return usual is not None and now > _TOLERANCE * usual


class Adaptive:
    """Moves a limiter's ``max_concurrency`` between ``least`` and its configured value, where it begins.

    Args:
        limiter: the provider's.
        least: the fewest places, at least 1.
        clock: monotonic seconds.
    """

    def __init__(self, limiter: Limiter, least: int, clock: Callable[[], float]) -> None:
        self._limiter = limiter
        self._least = min(least, limiter.limits.max_concurrency)
        self._clock = clock
        self.decreased_at = float("-inf")
        self._credit = 0

    def place(self) -> Place:
        """Return the place of an attempt that has just got its permit."""
        return Place(self, self._clock(), self._limiter.inflight, self._limiter.max_concurrency)

    def grow(self) -> None:
        """A call that had the last place went well."""
        limiter = self._limiter
        self._credit += 1
        if (
            self._credit < limiter.max_concurrency
            or limiter.max_concurrency >= limiter.limits.max_concurrency
        ):
            return
        self._credit = 0
        limiter.max_concurrency += 1
        limiter.admit()

    def shrink(self, inflight: int) -> None:
        """The provider had too much to do with ``inflight`` calls."""
        # From what was in flight, as in RFC 5681: places that nobody took were not what was too much. But by
        # half at most, since a 429 may be about calls in a minute, not at once.
        now = self._limiter.max_concurrency
        places = max(int(min(inflight, now) * _DECREASE), now // 2)
        self._limiter.max_concurrency = max(self._least, places)
        self.decreased_at = self._clock()
        self._credit = 0


class Place:
    """What an attempt saw when it got its permit, and what it tells of it.

    Args:
        adaptive: whose place it is.
        since: when the permit was got; seconds of the clock.
        inflight: how many permits were held then, its own included.
        limit: how many there were.
    """

    __slots__ = ("_adaptive", "_inflight", "_limit", "_since")

    def __init__(self, adaptive: Adaptive, since: float, inflight: int, limit: int) -> None:
        self._adaptive = adaptive
        self._since = since
        self._inflight = inflight
        self._limit = limit

    def began(self, pace: Pace, seconds: float) -> None:
        """The first token came after ``seconds``.

        A provider that is slow while less than half of its places are taken is not slow because of us.
        """
        if self._is_news and pace.slow(seconds, self._limit) and 2 * self._inflight >= self._limit:
            self._adaptive.shrink(self._inflight)

    def ended(self, outcome: Outcome) -> None:
        """The attempt is over.

        Success counts where it took the last place: while there is room, nobody knows what more would do.
        """
        if not self._is_news:
            return
        if outcome is Outcome.RATE_LIMITED:
            self._adaptive.shrink(self._inflight)
        elif outcome is Outcome.OK and self._inflight >= self._limit:
            self._adaptive.grow()

    @property
    def _is_news(self) -> bool:
        # What began before the last decrease tells of the load before it: one decrease for each round trip.
        return self._since > self._adaptive.decreased_at
