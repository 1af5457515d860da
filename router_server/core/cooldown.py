"""How long a target is left alone: after a 429 for as long as it asked, after a refusal until a probe.

Pure, clock injected. Refuses to know why; the table in `errors` does.
"""

from __future__ import annotations

from collections.abc import Callable

from router_server.core.errors import Outcome

_FIRST_WAIT = 1.0
_LONGEST_WAIT = 30.0
"""Seconds of a 429 that does not say how long: 1, doubling to 30."""

BENCH_LIMIT = 60.0
"""Seconds after which a benched target is tried again where no active check says anything: one interval."""


class Cooldown:
    """One target's rest."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = 0.0
        self._unspecified = 0
        self._benched: Outcome | None = None
        self._benched_until = 0.0

    @property
    def remaining(self) -> float:
        """Seconds until a rate-limited target may be asked again."""
        return max(0.0, self._until - self._clock())

    def rests(self) -> bool:
        """Tell whether the target is left alone now, for whichever reason."""
        if not self._until and not self._benched_until:  # nearly always so
            return False
        return self._clock() < max(self._until, self._benched_until)

    @property
    def benched(self) -> Outcome | None:
        """Why the target waits for a probe, or None if it does not."""
        return self._benched if self._clock() < self._benched_until else None

    def rate_limited(self, retry_after: float | None) -> float:
        """Cool exactly ``retry_after`` seconds, or 1 s doubling to 30 s without one; return the seconds."""
        if retry_after is None:
            wait = min(_FIRST_WAIT * 2.0**self._unspecified, _LONGEST_WAIT)
            self._unspecified = min(self._unspecified + 1, 5)
        else:
            wait = retry_after
        self._until = max(self._until, self._clock() + wait)
        return wait

    def bench(self, outcome: Outcome) -> None:
        """Leave the target alone until `unbench`, or for a minute."""
        self._benched = outcome
        self._benched_until = self._clock() + BENCH_LIMIT

    def unbench(self) -> None:
        """A probe was made: the target may be asked again."""
        self._benched_until = 0.0

    def answered(self) -> None:
        """The target answered: the next unspecified wait starts at 1 s, and nothing benches it."""
        self._unspecified = 0
        self._benched_until = 0.0
