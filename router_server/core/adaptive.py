"""Adaptive concurrency: how many calls at once a provider is sent, learned from what it does with them.

Additive increase, multiplicative decrease, as TCP finds the capacity of a path (RFC 5681): one place more
for every round trip in which all places were taken and all went well; three tenths fewer where the provider
refuses (429), one tenth where its first tokens come late. Pure, clock injected. Refuses to know what late
is; `pace` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from router_server.core.errors import Outcome
from router_server.core.limiter import Limiter
from router_server.core.pace import Pace

_AFTER_REFUSAL = 0.7
"""What remains of the places: as in CUBIC (RFC 9438, 4.6) and in the adaptive retry mode of the AWS SDKs. A
refusal has cost a call, and the target a rest, so the next one should be far off."""

_AFTER_LATENESS = 0.9
"""The same, as in the AIMD limit of Netflix's concurrency-limits: no call was lost, so less is given up."""


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

    def began(self, place: Place, pace: Pace, size: int, seconds: float) -> None:
        """An attempt's first token came after ``seconds``; its prompt has ``size`` tokens.

        A provider that is slow while less than half of its places are taken is not slow because of us.
        """
        if not self._is_news(place):
            return
        limit, load = self._limiter.max_concurrency, self._load(place, self._limiter.inflight)
        if pace.slow(size, seconds, limit) and 2 * load >= limit:
            self._decrease(int(load * _AFTER_LATENESS))

    def ended(self, place: Place, outcome: Outcome) -> None:
        """An attempt is over, and its permit given back.

        Success counts where all places were taken meanwhile: while there is room, nobody knows what more
        would do.
        """
        if not self._is_news(place):
            return
        if outcome is Outcome.RATE_LIMITED:
            self._decrease(int(self._load(place, self._limiter.inflight + 1) * _AFTER_REFUSAL))
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

    def _decrease(self, places: int) -> None:
        # From what was in flight, as in RFC 5681: places that nobody took were not what was too much. But by
        # half at most, since a 429 may be about calls in a minute, not at once.
        limiter = self._limiter
        fewer = max(self._least, places, limiter.max_concurrency // 2)
        # The limits may have been lowered since this began.
        limiter.max_concurrency = min(fewer, limiter.limits.max_concurrency)
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

    def began(self, pace: Pace, size: int, seconds: float) -> None:
        """Tell that the first token of an answer to ``size`` tokens came after ``seconds``."""
        self.adaptive.began(self, pace, size, seconds)

    def ended(self, outcome: Outcome) -> None:
        """Tell that the attempt is over."""
        self.adaptive.ended(self, outcome)
