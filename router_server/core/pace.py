"""Whether the first tokens of a target come later than they used to: the sign of a queue at the provider.

Each is held against what is usual for prompts of its size, since they differ in length a thousandfold, and
the time to the first token with them. A round is late if most of it is: one answer, or one in five, may
always be. Pure, clock injected. Refuses to know what is to be done about it.
"""

from __future__ import annotations

from collections.abc import Callable

from router_server.core.latency import Latencies

_TOLERANCE = 2.0
"""How many times the usual is late. Netflix's concurrency-limits tolerates 1.5 times its mean; times to a
first token spread more than those of their requests."""

_UNNOTICED = 0.1
"""Seconds by which nobody is late: a reader does not notice them, and a short prompt's usual is less."""

_SMALLEST_ROUND = 20
"""First tokens by which is judged at least. Where times are lognormal with a deviation of 1, a quarter is
late by chance, and most of 20 in three rounds of a thousand."""

_MEMORY = 3_600.0
"""Seconds that are usual: an hour, so that a busy quarter of it is not."""

_SAMPLED = 10.0
"""Seconds from one time that is remembered to the next, so that an hour is remembered at any rate."""

_MOST = int(_MEMORY / _SAMPLED)


class Pace:
    """The times to first token of one target."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._usual: dict[int, _Usual] = {}
        self._seen = 0
        self._late = 0

    def slow(self, size: int, seconds: float, places: int) -> bool:
        """Take note of a time to first token; tell whether it ends a round that was late.

        Args:
            size: the prompt's tokens.
            seconds: the time.
            places: a round has as many, at least 20: about one round trip of a provider in full use.
        """
        # Classes of size are powers of four: within one, times differ less than the tolerance and chance.
        usual = self._usual.setdefault(size.bit_length() // 2, _Usual(self._clock))
        typical = usual.typical
        usual.add(seconds)
        if typical is None:
            return False
        self._seen += 1
        self._late += seconds > max(_TOLERANCE * typical, typical + _UNNOTICED)
        if self._seen < max(_SMALLEST_ROUND, places):
            return False
        most_were = 2 * self._late > self._seen
        self._seen = self._late = 0
        return most_were


class _Usual:
    """What is usual for one class of prompts: the median of an hour, once twenty times are known."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times = Latencies(clock, _MEMORY, _MOST)
        self._next = float("-inf")

    @property
    def typical(self) -> float | None:
        return self._times.quantile(0.5)

    def add(self, seconds: float) -> None:
        if self._clock() >= self._next:
            self._times.add(seconds)
            self._next = self._clock() + _SAMPLED
