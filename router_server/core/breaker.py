"""The circuit breaker of one target: closed, open, half-open.

Pure: the clock and the jitter are injected, and nothing is scheduled; an open breaker is half-open once
its time is over, and becomes it when a call comes. Refuses to know what a failure is: the table in
`errors` does; and how processes agree on one: `agreement` does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_BUCKETS = 10
"""The failure rate's window slides in tenths."""


class BreakerState(StrEnum):
    """The three states."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


_CLOSED: Final = BreakerState.CLOSED
_OPEN: Final = BreakerState.OPEN
_HALF_OPEN: Final = BreakerState.HALF_OPEN
"""Under names of their own: to look a member up in its enum takes 900 instructions in Python 3.11."""


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a breaker opens and closes; times in seconds."""

    failure_threshold: int = 5
    failure_rate: float = 0.5
    min_calls: int = 20
    window: float = 30.0
    open: float = 10.0
    open_max: float = 20.0
    half_open_probes: int = 1
    success_threshold: int = 2


class Pass:
    """Leave to make a call; to be handed back exactly once for each call, with its result.

    All calls that begin while a breaker stays as it is have the same one; when that changes there is another,
    so that what comes of them later counts nothing.
    """

    __slots__ = ()


_UNCOUNTED: Final = Pass()
"""That of a call which an open breaker is made to let through."""


@dataclass(slots=True)
class _Bucket:
    start: float
    calls: int = 0
    failures: int = 0


_NEVER: Final = _Bucket(-math.inf)
"""A bucket that is over before anything is counted in it."""


class Breaker:
    """Counts results and refuses calls to a target that fails.

    Args:
        settings: the thresholds.
        clock: monotonic seconds.
        jitter: a factor for each open period, around 1, so that replicas do not probe in step.
        on_change: told the state before and after each change.

    Attributes:
        closed: every call is let through.
        courtesy: seconds after an open period in which nobody probes without `lead`, so that processes can
            agree on who does; 0 where there is nobody to agree with.
        opinions: how often this process's own calls or checks have opened or closed it.
        wanted: a call would have liked to go there since somebody set this to False.
    """

    def __init__(
        self,
        settings: BreakerSettings,
        clock: Callable[[], float],
        jitter: Callable[[], float] = lambda: 1.0,
        on_change: Callable[[BreakerState, BreakerState], None] = lambda _before, _after: None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._jitter = jitter
        self._on_change = on_change
        self._state = BreakerState.CLOSED
        self._pass = Pass()
        self._streak = 0
        self._tenth = settings.window / _BUCKETS
        self._newest = _NEVER
        self._buckets: deque[_Bucket] = deque()
        self._reopened = 0
        self._open_until = 0.0
        self._probes = 0
        self._passed_probes = 0
        self._probes_from = 0.0
        self.closed = True
        self.courtesy = 0.0
        self.opinions = 0
        self.wanted = False

    @property
    def state(self) -> BreakerState:
        """The state now. Changes nothing, so any thread may look."""
        if self._state is _OPEN and self._clock() >= self._open_until:
            return BreakerState.HALF_OPEN
        return self._state

    @property
    def ready_in(self) -> float:
        """Seconds until a call may be let through, 0 where one may be now."""
        match self.state:
            case BreakerState.CLOSED:
                return 0.0
            case BreakerState.OPEN:
                return max(0.0, self._open_until - self._clock())
            case BreakerState.HALF_OPEN:
                return max(0.0, self._probes_from - self._clock())

    @property
    def reopened(self) -> int:
        """How often in a row a probe has failed: each time the open period doubles."""
        return self._reopened

    @property
    def probing(self) -> bool:
        """Tell whether a probe of this process is under way."""
        return self._state is _HALF_OPEN and self._probes > 0

    @property
    def admits(self) -> bool:
        """Tell whether `enter` would let a call through now."""
        match self.state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return False
            case BreakerState.HALF_OPEN:
                if self._clock() < self._probes_from:
                    return False
                return self._state is _OPEN or self._probes < self._settings.half_open_probes

    def enter(self, *, force: bool = False) -> Pass | None:
        """Return leave for one call, or None.

        ``force`` lets the least bad of several targets through an open breaker; such a call counts nothing.
        """
        if self.closed:
            return self._pass
        self._turn()
        if not self.admits:
            return _UNCOUNTED if force else None
        if self._state is _HALF_OPEN:
            self._probes += 1
        return self._pass

    def success(self, leave: Pass) -> None:
        """The call went well."""
        if leave is not self._pass:
            return
        if self._state is _HALF_OPEN:
            self._probes -= 1
            self._passed_probes += 1
            if self._passed_probes >= self._settings.success_threshold:
                self.opinions += 1
                self._close()
            return
        self._streak = 0
        if (now := self._clock()) >= self._newest.start + self._tenth:
            self._begin_bucket(now)
        self._newest.calls += 1

    def failure(self, leave: Pass) -> None:
        """The call failed, and the upstream is to blame."""
        if leave is not self._pass:
            return
        if self._state is _HALF_OPEN:
            self._reopened += 1
            self._open()
            return
        self._streak += 1
        if (now := self._clock()) >= self._newest.start + self._tenth:
            self._begin_bucket(now)
        self._newest.calls += 1
        self._newest.failures += 1
        if self._streak >= self._settings.failure_threshold or self._rate_exceeded():
            self._open()

    def neutral(self, leave: Pass) -> None:
        """The call says nothing about the upstream; a probe is given back."""
        if leave is self._pass and self._state is _HALF_OPEN:
            self._probes -= 1

    def trip(self) -> None:
        """Open at once, whatever was counted."""
        self._turn()
        if self._state is not _OPEN:
            self._open()

    def check_failed(self) -> None:
        """A failure confirmed by an active check: counts like a call's."""
        if self.state is _CLOSED:
            self.failure(self._pass)

    def check_passed(self) -> None:
        """An active check passed: an open period ends early."""
        if self._state is _OPEN:
            self._half_open()
            self._probes_from = self._clock() + self.courtesy

    def heard_open(self, seconds: float, reopened: int) -> None:
        """Another process has opened it, for so many seconds from now."""
        self._reopened = reopened
        self._leave_alone(seconds)

    def heard_closed(self) -> None:
        """Another process has closed it."""
        if self._state is not BreakerState.CLOSED:
            self._close()

    def lead(self) -> None:
        """Probe, once it is half-open, without waiting for anybody."""
        self._probes_from = 0.0

    def follow(self, seconds: float) -> None:
        """Let another process probe for so long."""
        self._probes_from = self._clock() + seconds

    def _turn(self) -> None:
        if self._state is _OPEN and self._clock() >= self._open_until:
            self._half_open()

    def _begin_bucket(self, now: float) -> None:
        self._newest = _Bucket(now)
        self._buckets.append(self._newest)
        self._forget(now)

    def _forget(self, now: float) -> None:
        while now - self._buckets[0].start > self._settings.window:
            self._buckets.popleft()

    def _rate_exceeded(self) -> bool:
        self._forget(self._clock())
        calls = sum(b.calls for b in self._buckets)
        failures = sum(b.failures for b in self._buckets)
        return calls >= self._settings.min_calls and failures / calls >= self._settings.failure_rate

    def _open(self) -> None:
        self.opinions += 1
        period = min(self._settings.open * 2.0**self._reopened, self._settings.open_max)
        self._leave_alone(period * self._jitter())

    def _leave_alone(self, seconds: float) -> None:
        self._open_until = self._clock() + seconds
        self._probes_from = self._open_until + self.courtesy
        self.wanted = False
        self._become(BreakerState.OPEN)

    def _half_open(self) -> None:
        self._probes = 0
        self._passed_probes = 0
        self._become(BreakerState.HALF_OPEN)

    def _close(self) -> None:
        self._streak = 0
        self._reopened = 0
        self._newest = _NEVER
        self._buckets.clear()
        self._become(BreakerState.CLOSED)

    def _become(self, state: BreakerState) -> None:
        # A new pass makes the results of calls that began in another state count nothing.
        self._pass = Pass()
        before, self._state = self._state, state
        self.closed = state is _CLOSED
        if before is not state:
            self._on_change(before, state)
