"""Time: one shrinking budget per call, and the timers that are cut from it.

Pure arithmetic on seconds of a monotonic clock that the caller reads. Refuses to wait for anything.
"""

from __future__ import annotations

from dataclasses import dataclass

MIN_ATTEMPT = 0.1
"""Seconds that an attempt needs to be worth starting."""

_MARGIN = 0.05
"""Our status must arrive before the client's own timer: seconds, and share of a short deadline."""

_FAIR_TRIAL = 5.0
"""Seconds after which a timer that was cut short still speaks against the upstream."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an upstream may take, in seconds.

    Attributes:
        connect: name lookup, TCP and TLS.
        first_token: until the first event of a stream.
        first_token_reasoning: the same, where a reasoning effort is set.
        idle: between two events of a stream, while we are reading.
        unary: until the whole answer of a unary call.
    """

    connect: float = 5.0
    first_token: float = 15.0
    first_token_reasoning: float = 60.0
    idle: float = 15.0
    unary: float = 120.0


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment at which a call is over."""

    at: float

    def remaining(self, now: float) -> float:
        """Return the seconds that are left, never negative."""
        return max(0.0, self.at - now)

    def spent(self, now: float) -> bool:
        """Tell whether nothing is left."""
        return now >= self.at


def deadline_of(now: float, timeout: float | None, default: float) -> Deadline:
    """Return the call's deadline: the caller's less min(50 ms, 5 %), or ``default`` from now."""
    if timeout is None:
        return Deadline(now + default)
    return Deadline(now + timeout - min(_MARGIN, timeout * _MARGIN))


@dataclass(frozen=True, slots=True)
class Timer:
    """A limit as it applies, and as it was configured; both in seconds."""

    limit: float
    configured: float

    def blames_upstream(self, ran: float) -> bool:
        """Tell whether expiry after ``ran`` seconds counts against the upstream.

        A timer cut short by the caller's wishes is neutral unless it ran min(configured, 5 s).
        """
        return self.limit >= self.configured or ran >= min(self.configured, _FAIR_TRIAL)


def share(configured: float, remaining: float, *, others_left: bool, wished: float | None = None) -> Timer:
    """Return an attempt's timer: its own limit, at most what remains, half of it if another may follow.

    Args:
        configured: the limit of the target's configuration.
        remaining: what is left of the call's deadline.
        others_left: another target may be tried after this one.
        wished: a shorter limit that the caller asked for.
    """
    limit = min(configured, remaining / 2 if others_left else remaining)
    return Timer(limit if wished is None else min(limit, wished), configured)
