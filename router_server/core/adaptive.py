"""Adaptive concurrency: how many calls at once a provider is sent, learned from what it does with them.

Additive increase, multiplicative decrease, as TCP finds the capacity of a path (RFC 5681): one place more
for every round trip in which all places were taken and all went well, three tenths fewer where the provider
refuses (429) or its first tokens come late. Pure, clock injected. Refuses to know what a call is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
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
        self._full_at = float("-inf")
        self._decreased_at = float("-inf")
        self._credit = 0

    def place(self) -> Place:
        """Return the place of an attempt that has just got its permit."""
        now, inflight = self._clock(), self._limiter.inflight
        if inflight >= self._limiter.max_concurrency:
            self._full_at = now
        return Place(self, now, inflight)

    def began(self, place: Place, pace: Pace, seconds: float) -> None:
        """An attempt's first token came after ``seconds``.

        A provider that is slow while less than half of its places are taken is not slow because of us.
        """
        if not self._is_news(place):
            return
        limit, load = self._limiter.max_concurrency, self._load(place, self._limiter.inflight)
        if pace.slow(seconds, limit) and 2 * load >= limit:
            self._decrease(load)

    def ended(self, place: Place, outcome: Outcome) -> None:
        """An attempt is over, and its permit given back.

        Success counts where all places were taken meanwhile: while there is room, nobody knows what more
        would do.
        """
        if not self._is_news(place):
            return
        if outcome is Outcome.RATE_LIMITED:
            self._decrease(self._load(place, self._limiter.inflight + 1))
        elif outcome is Outcome.OK and self._was_full(place):
            self._credit += 1
            self._increase()

    def _is_news(self, place: Place) -> bool:
        # What began before the last decrease tells of the load before it: one decrease for each round trip.
        return place.since > self._decreased_at

    def _was_full(self, place: Place) -> bool:
        return self._full_at >= place.since

    def _load(self, place: Place, now: int) -> int:
        """Return about how many calls were in flight while this one was; ``now`` are those that are."""
        limit = self._limiter.max_concurrency
        return limit if self._was_full(place) else min(limit, max(place.inflight, now))

    def _increase(self) -> None:
        limiter = self._limiter
        if (
            self._credit < limiter.max_concurrency
            or limiter.max_concurrency >= limiter.limits.max_concurrency
        ):
            return
        self._credit = 0
        limiter.max_concurrency += 1
        limiter.admit()

    def _decrease(self, load: int) -> None:
        # From what was in flight, as in RFC 5681: places that nobody took were not what was too much. But by
        # half at most, since a 429 may be about calls in a minute, not at once.
        limit = self._limiter.max_concurrency
        places = max(int(load * _DECREASE), limit // 2)
        self._limiter.max_concurrency = max(self._least, places)
        self._decreased_at = self._clock()
        self._credit = 0


@dataclass(frozen=True, slots=True)
class Place:
    """What an attempt saw when it got its permit.

    Attributes:
        adaptive: what moves the limit that it is within.
        since: when; seconds of the clock.
        inflight: how many permits were held then, its own included.
    """

    adaptive: Adaptive
    since: float
    inflight: int

    def began(self, pace: Pace, seconds: float) -> None:
        """Tell that the first token came after ``seconds``."""
        self.adaptive.began(self, pace, seconds)

    def ended(self, outcome: Outcome) -> None:
        """Tell that the attempt is over."""
        self.adaptive.ended(self, outcome)
