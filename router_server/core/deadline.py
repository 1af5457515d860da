"""Time: one shrinking budget per call, and the timers that are cut from it.

Pure arithmetic on seconds of a monotonic clock that the caller reads. Refuses to wait for anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from router_server.core.record import Record, field

MIN_ATTEMPT = 0.1
"""Seconds that an attempt needs to be worth starting."""

_MARGIN = 0.05
"""Our status must arrive before the client's own timer: seconds, and share of a short deadline."""

_FAIR_TRIAL = 5.0
"""Seconds after which a timer that was cut short still speaks against the upstream."""

_FAREWELL = 2.0
"""Seconds that an upstream may take, once it has finished, to send the usage and end the stream."""

_CONNECT_MARGIN = 0.05
"""Seconds by which connecting ends before the call does."""

_TIGHT = 2 * _CONNECT_MARGIN
"""Seconds of a call of which that would be more than half."""


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


class Scope(Protocol):
    """A timeout that is running; `asyncio.Timeout` is one. Moments are those of the loop's clock."""

    def when(self) -> float | None:
        """Return when it ends, or None: it rests."""

    def reschedule(self, when: float | None) -> None:
        """Let it end then."""


class Follower(Protocol):
    """Somebody whose own timer is cut from a deadline."""

    def put_off(self, by: float) -> None:
        """The deadline is ``by`` seconds later than it was."""


class Deadline(Struct, gc=False):
    """The moment at which a call is over."""

    at: float
    followers: set[Follower] | None = None
    """Who is told whenever it moves; None: it never does."""

    def remaining(self, now: float) -> float:
        """Return the seconds that are left, never negative."""
        left = self.at - now
        return left if left > 0 else 0.0  # `max` takes ten times as long

    def spent(self, now: float) -> bool:
        """Tell whether nothing is left."""
        return now >= self.at


class MovingDeadline(Deadline, gc=True, eq=False):
    """That of a call for which several wait: the latest of theirs, as they come."""

    followers: set[Follower] = field(default_factory=set)

    def put_off(self, at: float) -> bool:
        """Make it ``at``, if that is later than it is; tell whether it was."""
        by = at - self.at
        if by <= 0:
            return False
        self.at = at
        for one in tuple(self.followers):
            one.put_off(by)
        return True


def deadline_of(now: float, timeout: float | None, default: float) -> Deadline:
    """Return the call's deadline: the caller's less min(50 ms, 5 %), or ``default`` from now."""
    if timeout is None:
        return Deadline(now + default)
    return Deadline(now + timeout - (_MARGIN if timeout >= 1 else timeout * _MARGIN))


class Timer(Record, frozen=True):
    """A limit as it applies, and as it was configured; both in seconds."""

    limit: float
    configured: float

    def blames_upstream(self, ran: float) -> bool:
        """Tell whether expiry after ``ran`` seconds counts against the upstream.

        A timer cut short by the caller's wishes is neutral unless it ran min(configured, 5 s).
        """
        return self.limit >= self.configured or ran >= min(self.configured, _FAIR_TRIAL)


def share(
    configured: float,
    remaining: float,
    others_left: bool,
    wished: float | None = None,
) -> float:
    """Return the seconds of an attempt's timer: its own, at most what remains, half if another may follow.

    Args:
        configured: the limit of the target's configuration.
        remaining: what is left of the call's deadline.
        others_left: another target may be tried after this one.
        wished: a shorter limit that the caller asked for.
    """
    limit = remaining / 2 if others_left else remaining
    if limit > configured:  # noqa: PLR1730 - `min` takes ten times as long
        limit = configured
    return limit if wished is None or wished > limit else wished


class Timers(Struct, eq=False):
    """The timers of one attempt, cut from what remains of its call when it begins.

    The one that runs is put off when the call's deadline is.

    Args:
        timeouts: the target's.
        deadline: the call's.
        others_left: another target may be tried after this one.

    Attributes:
        since: the moment at which the upstream was asked.
        scope: the one that runs now; None: none does, as it is when the attempt is over.
        latest: the moment to which that may be put off.
    """

    _timeouts: Timeouts
    _deadline: Deadline
    _others_left: bool
    _remaining: float = 0.0
    _streams: bool = False
    since: float = 0.0
    scope: Scope | None = None
    latest: float = 0.0

    def put_off(self, by: float) -> None:
        """The call has ``by`` more seconds than it had, and so has what is waited for: its share of them."""
        when = None if self.scope is None else self.scope.when()
        if self.scope is not None and when is not None:
            mine = by / 2 if self._others_left and not self._streams else by
            self.scope.reschedule(max(when, min(when + mine, self.latest)))

    def queue(self, configured: float, now: float) -> float:
        """Return the seconds that a permit is waited for."""
        return share(configured, self._deadline.remaining(now), self._others_left)

    def begin(self, now: float) -> float:
        """The upstream is asked: what follows is cut from what remains now. Return the seconds of connecting.

        They end before those around them do, so that the culprit is known.
        """
        self.since = now
        self._remaining = remaining = self._deadline.remaining(now)
        configured = self._timeouts.connect
        shared = self._others_left or remaining <= _TIGHT
        latest = remaining / 2 if shared else remaining - _CONNECT_MARGIN
        return configured if configured < latest else latest  # noqa: FURB136 - `min` takes ten times as long

    def unary(self) -> float:
        """Return the seconds of a whole answer."""
        return share(self._timeouts.unary, self._remaining, self._others_left)

    def first_token(self, reasoning: bool, wished: float | None) -> Timer:
        """Return the timer of a stream's first event; ``wished`` is the caller's own limit."""
        timeouts = self._timeouts
        configured = timeouts.first_token_reasoning if reasoning else timeouts.first_token
        return Timer(share(configured, self._remaining, self._others_left, wished), configured)

    def idle(self, since: float, *, finished: bool) -> float:
        """Return until when a stream's next event is waited for; once ``finished`` it has its usage to send.

        Not cut from what remains of the call, and no `Timer`.
        """
        self._streams = True
        idle = self._timeouts.idle
        self.latest = since + (min(idle, _FAREWELL) if finished else idle)
        return self.latest
