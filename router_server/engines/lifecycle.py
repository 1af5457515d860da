"""The life of an engine: from what happens to it to what is to be done.

Pure: the clock and the jitter are injected, and every event returns the one thing to do next, or None.
Refuses to know processes, HTTP and callers: `supervisor` tells what they do.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from router_server.core.engine import EnginePolicy, EngineState, EngineStatus

_BEFORE_READY = frozenset({EngineState.STARTING, EngineState.WAKING})
_WAITING = frozenset({EngineState.BACKING_OFF, EngineState.FAILED})
_AWAY = frozenset({EngineState.ASLEEP, EngineState.STOPPED})
_MOST_DOUBLINGS = 30


class Action(Enum):
    """What is to be done."""

    START = auto()
    END = auto()
    """End the process; its end is told by `Lifecycle.ended`."""
    SLEEP = auto()
    """Ask the engine to sleep; how that went is told by `Lifecycle.slept`."""
    WAKE = auto()
    """Ask the engine to wake; how that went is told by `Lifecycle.woke`."""


class Lifecycle:
    """One engine's life.

    Args:
        policy: when it is given up, restarted, put to sleep.
        sleeps: whether it can sleep without ending.
        clock: monotonic seconds.
        jitter: a factor for each backoff, around 1, so that engines do not start in step.

    Attributes:
        cause: why it last left READY, or failed to get there; for people.
    """

    def __init__(
        self, policy: EnginePolicy, *, sleeps: bool, clock: Callable[[], float], jitter: Callable[[], float]
    ) -> None:
        self._policy = policy
        self._sleeps = sleeps
        self._clock = clock
        self._jitter = jitter
        self._state = EngineState.STOPPED
        self._since = clock()
        self._active_at = self._since
        self._ready_at: float | None = None
        self._due = 0.0
        self._failures = 0
        self._missed = 0
        self._alive = False
        self._ending = False
        self._over = False
        self._falling_asleep = False
        self._being_woken = False
        self._wanted = False
        self._version = self._restarts = self._wakes = 0
        self._asleep = 0.0
        self._start_duration: float | None = None
        self.cause = ""

    @property
    def state(self) -> EngineState:
        """Where it is."""
        return self._state

    @property
    def alive(self) -> bool:
        """Tell whether there is a process."""
        return self._alive

    @property
    def ending(self) -> bool:
        """Tell whether the process was asked to end and has not yet."""
        return self._ending

    @property
    def waits(self) -> float:
        """Seconds until it is started again; 0 where it does not wait for that."""
        return max(0.0, self._due - self._clock()) if self._state in _WAITING else 0.0

    @property
    def status(self) -> EngineStatus:
        """How it is now."""
        return EngineStatus(
            self._state, self._version, self._restarts, self._wakes, self._time_asleep(), self._start_duration
        )

    def begin(self) -> Action | None:
        """Start for the first time."""
        return self._start(EngineState.STARTING)

    def checked(self, *, well: bool) -> Action | None:
        """Take note of a health check."""
        if self._ending or self._being_woken:
            return None
        if self._state in _BEFORE_READY:
            if well:
                self._become_ready()
            return None
        if self._state is not EngineState.READY:
            return None
        self._missed = 0 if well else self._missed + 1
        if self._missed >= self._policy.check_failures:
            return self.give_up(f"{self._missed} health checks in a row failed")
        return None

    def give_up(self, cause: str) -> Action | None:
        """End a process that is of no use any more, to start it again; ``cause`` says why, for people."""
        if self._ending or not self._alive:
            return None
        if self._state is not EngineState.LEAVING:
            self._move(EngineState.BACKING_OFF, cause)
        return self._end()

    def ended(self, cause: str) -> Action | None:
        """The process has ended; ``cause`` says how, where it was not told to."""
        expected, self._ending, self._alive = self._ending, False, False
        if self._over or self._state is EngineState.LEAVING:
            return None
        if self._state in {EngineState.DROWSY, EngineState.ASLEEP}:
            self._falling_asleep = False
            self._move(EngineState.STOPPED, "" if expected else cause)
            return self.want() if self._wanted else None
        self._back_off(self.cause if expected else cause)
        return None

    def tick(self, *, busy: bool) -> Action | None:
        """Let time pass; ``busy`` tells whether calls are in it or wait for it."""
        now = self._clock()
        if busy:
            self._active_at = now
        if self._ending or self._over:
            return None
        if self._state in _WAITING and now >= self._due:
            self._restarts += 1
            return self._start(EngineState.STARTING)
        if self._state in _BEFORE_READY and now - self._since >= self._policy.start_timeout:
            return self.give_up(f"it was not ready within {self._policy.start_timeout:g} s")
        if self._state is EngineState.READY and self._is_idle(now):
            self._move(EngineState.DROWSY)
        return None

    def used(self) -> None:
        """A call made progress."""
        self._active_at = self._clock()

    def want(self) -> Action | None:
        """A call wants it."""
        self._active_at = self._clock()
        if self._over:
            return None
        if self._state is EngineState.DROWSY:
            self._wanted = True
            if not self._falling_asleep:
                self._move(EngineState.READY)
            return None
        if self._state not in _AWAY:
            return None
        self._wakes += 1
        if self._state is EngineState.STOPPED:
            return self._start(EngineState.WAKING)
        self._move(EngineState.WAKING)
        self._being_woken = True
        return Action.WAKE

    def all_agree(self) -> Action | None:
        """Everyone who could call knows that it is drowsy, and has nothing for it."""
        if self._state is not EngineState.DROWSY or self._falling_asleep or self._ending:
            return None
        self._falling_asleep = True
        return Action.SLEEP if self._sleeps else self._end()

    def slept(self, *, well: bool) -> Action | None:
        """The request to sleep was answered; an engine that cannot sleep is stopped."""
        if self._state is not EngineState.DROWSY or self._ending or not self._alive:
            return None
        if not well:
            self._sleeps = False
            return self._end()
        self._falling_asleep = False
        self._move(EngineState.ASLEEP)
        return self.want() if self._wanted else None

    def woke(self, *, well: bool) -> Action | None:
        """The request to wake was answered; an engine that cannot wake is started again."""
        if not self._being_woken or self._ending or not self._alive:
            return None
        self._being_woken = False
        if not well:
            return self.give_up("it did not wake")
        self._become_ready()
        return None

    def change(self, policy: EnginePolicy, *, sleeps: bool) -> None:
        """Go by another policy from now on."""
        self._policy = policy
        self._sleeps = sleeps

    def retire(self) -> Action | None:
        """It is wanted no more: end for good, once nobody has a call in it."""
        taking = self._state is EngineState.READY
        self._move(EngineState.LEAVING)
        if not self._alive:
            self._over = True
        return self._end() if self._alive and not taking else None

    def all_left(self) -> Action | None:
        """Everyone who could call knows that it is leaving, and has nothing in it."""
        return self._end() if self._state is EngineState.LEAVING and self._alive else None

    def stop(self) -> Action | None:
        """End for good, with the router."""
        self._over = True
        self._move(EngineState.STOPPED)
        return self._end() if self._alive else None

    def _start(self, state: EngineState) -> Action:
        self._move(state)
        self._alive = True
        return Action.START

    def _end(self) -> Action | None:
        if self._ending:
            return None
        self._ending = True
        return Action.END

    def _become_ready(self) -> None:
        self._start_duration = self._clock() - self._since
        self._missed = 0
        self._move(EngineState.READY)
        self._active_at = self._ready_at = self._since

    def _back_off(self, cause: str) -> None:
        policy = self._policy
        now = self._clock()
        if self._ready_at is not None and now - self._ready_at >= policy.backoff_max:
            self._failures = 0
        self._failures += 1
        self._ready_at = None
        doublings = min(self._failures - 1, _MOST_DOUBLINGS)
        self._due = now + min(policy.backoff * 2.0**doublings, policy.backoff_max) * self._jitter()
        hopeless = self._failures >= policy.hopeless_after
        self._move(EngineState.FAILED if hopeless else EngineState.BACKING_OFF, cause)

    def _is_idle(self, now: float) -> bool:
        limit = self._policy.idle_sleep
        return limit is not None and now - self._active_at >= limit

    def _move(self, state: EngineState, cause: str = "") -> None:
        if state is EngineState.DROWSY:
            self._wanted = False
        self._asleep = self._time_asleep()
        self._since = self._clock()
        self._state = state
        self._being_woken = False
        self._version += 1
        self.cause = cause

    def _time_asleep(self) -> float:
        """Return the seconds asleep or stopped; before the first start and after the last are neither."""
        resting = self._state in _AWAY and self._version > 0 and not self._over
        return self._asleep + (self._clock() - self._since if resting else 0.0)
