"""Concurrency: how many calls a provider serves at once, and who is next when there is room.

The queue is bounded and ordered: whoever waited longer than ``max_wait_boost`` first, then priority,
then the shortest prompt, then arrival. A target may have a gate of its own inside its provider's limit;
a permit takes both or neither, so nobody holds one while waiting for the other. Refuses to know what a
permit is used for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec import Struct

from router_server.core.errors import Outcome, UpstreamError


@dataclass(frozen=True, slots=True)
class Limits:
    """A provider's limits; times in seconds."""

    max_concurrency: int = 64
    max_queue: int = 128
    queue_timeout: float = 5.0
    max_wait_boost: float = 2.0


@dataclass(slots=True)
class Gate:
    """A target's own limit inside its provider's; ``capacity`` None is unlimited."""

    capacity: int | None = None
    inflight: int = 0
    queued: int = 0


@dataclass(eq=False, slots=True)
class _Waiter:
    gate: Gate
    priority: int
    size: int
    since: float
    arrival: int
    admitted: asyncio.Future[Permit] = field(repr=False)

    def rank(self, now: float, boost: float) -> tuple[float, ...]:
        if now - self.since >= boost:
            return (0, self.arrival)
        return (1, -self.priority, self.size, self.arrival)


class Permit(Struct, eq=False, gc=False):
    """One slot of a limiter; must be released, and may be released twice."""

    _limiter: Limiter | None
    _gate: Gate

    def release(self) -> None:
        """Give the slot back and admit whoever is next."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.inflight -= 1
            self._gate.inflight -= 1
            limiter.admit()


class Limiter:
    """One provider's slots and the queue before them.

    Between two steps no waiter in the queue could be admitted, so a newcomer who finds room takes nobody's
    place. ``max_concurrency`` may be changed at any time; `admit` then lets in whoever fits. While it is
    paused nobody gets a slot.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.max_concurrency = limits.max_concurrency
        self.inflight = 0
        self.paused = False
        self._clock = clock
        self._waiters: list[_Waiter] = []
        self._arrivals = 0

    @property
    def queued(self) -> int:
        """How many calls wait."""
        return len(self._waiters)

    def take(self, gate: Gate) -> Permit | None:
        """Return a slot if there is one now, as there nearly always is."""
        return self._permit(gate) if self.has_room(gate) else None

    async def acquire(
        self, gate: Gate, *, priority: int = 0, size: int = 0, max_wait: float | None = None
    ) -> Permit:
        """Wait for a slot, at most ``max_wait`` seconds (default: the limit's ``queue_timeout``).

        Args:
            gate: the target's own limit.
            priority: higher goes first.
            size: what the shortest job is measured by, in tokens.
            max_wait: the longest wait in seconds; 0 does not wait.

        Raises:
            UpstreamError: SATURATED, ``queue_full`` or ``queue_timeout``; or what `turn_away` was given.
        """
        if self.has_room(gate):
            return self._permit(gate)
        patience = self.limits.queue_timeout if max_wait is None else max_wait
        if patience <= 0:
            raise UpstreamError(Outcome.SATURATED, "queue_timeout")
        if len(self._waiters) >= self.limits.max_queue:
            raise UpstreamError(Outcome.SATURATED, "queue_full")
        return await self._wait(gate, priority, size, patience)

    def has_room(self, gate: Gate) -> bool:
        """Tell whether a newcomer would get a slot at once."""
        if self.paused or self.inflight >= self.max_concurrency:
            return False
        return gate.capacity is None or gate.inflight < gate.capacity

    def change(self, limits: Limits) -> None:
        """Go by ``limits`` from now on; who waits or is served already stays, also where that is too many."""
        self.limits = limits
        self.max_concurrency = limits.max_concurrency
        self.admit()

    def pause(self) -> None:
        """Let nobody in from now on."""
        self.paused = True

    def resume(self) -> None:
        """Let in again, first those who have waited."""
        self.paused = False
        self.admit()

    def turn_away(self, reason: str) -> None:
        """Let nobody wait any longer: each of those who do now is told ``reason``, as CIRCUIT_OPEN."""
        for waiter in tuple(self._waiters):
            if not waiter.admitted.done():
                waiter.admitted.set_exception(UpstreamError(Outcome.CIRCUIT_OPEN, reason))

    def admit(self) -> None:
        """Let in everyone who fits, in order."""
        if not self._waiters:
            return
        now = self._clock()
        while not self.paused and self.inflight < self.max_concurrency:
            # A cancelled waiter is still in the queue until its task runs.
            waiting = [w for w in self._waiters if self.has_room(w.gate) and not w.admitted.done()]
            if not waiting:
                return
            first = min(waiting, key=lambda w: w.rank(now, self.limits.max_wait_boost))
            self._leave_queue(first)
            first.admitted.set_result(self._permit(first.gate))

    async def _wait(self, gate: Gate, priority: int, size: int, max_wait: float) -> Permit:
        self._arrivals += 1
        admitted: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(gate, priority, size, self._clock(), self._arrivals, admitted)
        self._waiters.append(waiter)
        gate.queued += 1
        try:
            async with asyncio.timeout(max_wait):
                return await admitted
        except BaseException as error:
            # Admission and cancellation may fall into the same step of the loop.
            if admitted.done() and not admitted.cancelled() and admitted.exception() is None:
                admitted.result().release()
            else:
                self._leave_queue(waiter)
            if isinstance(error, TimeoutError):
                raise UpstreamError(Outcome.SATURATED, "queue_timeout") from None
            raise

    def _permit(self, gate: Gate) -> Permit:
        self.inflight += 1
        gate.inflight += 1
        return Permit(self, gate)

    def _leave_queue(self, waiter: _Waiter) -> None:
        self._waiters.remove(waiter)
        waiter.gate.queued -= 1
