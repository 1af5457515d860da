"""A call's way from target to target: attempts come out until one answers or the verdict is raised.

The shell around `plan.Course`: it waits where the course says so and keeps the call's notebook. Refuses to
know what an attempt does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping

from router_server.core.attempt import Attempt
from router_server.core.call import Call
from router_server.core.errors import BreakerEffect, Outcome, RouterError, UpstreamError
from router_server.core.observer import Failover
from router_server.core.plan import Course, Plan
from router_server.core.target import Target

_BACKOFF = 0.25
_LONGEST_BACKOFF = 4.0
"""Seconds: full jitter between 0 and 0.25, doubling to 4."""


def full_jitter(retry: int) -> float:
    """Return the seconds before the n-th retry, counted from 1."""
    return random.uniform(0.0, min(_BACKOFF * 2.0 ** (retry - 1), _LONGEST_BACKOFF))  # noqa: S311 - spreads load


class Journey:
    """Gives the attempts of one call, one after the other.

    Whoever takes an attempt runs it, and tells `failed` if it failed.

    Args:
        call: whose way it is.
        plan: the targets in order.
        targets: the route's targets by name.
        check_soon: see `Attempt`.
        backoff: see `Course`.
    """

    def __init__(
        self,
        call: Call,
        plan: Plan,
        targets: Mapping[str, Target],
        check_soon: Callable[[Target, BreakerEffect], None],
        backoff: Callable[[int], float] = full_jitter,
    ) -> None:
        self._call = call
        self._targets = targets
        self._check_soon = check_soon
        self._course = Course(plan, call.deadline, backoff)
        skipped = {skip.target: skip.outcome for skip in plan.skipped}
        self._previous = (plan.first, skipped[plan.first]) if plan.first in skipped else None

    async def next(self) -> Attempt:
        """Return the next attempt, once it is due.

        Raises:
            RouterError: the verdict; there is no next attempt.
        """
        step = self._course.next_step(self._call.clock())
        if step is None:
            raise self.verdict()
        if step.wait > 0:
            await asyncio.sleep(step.wait)
        target = self._targets[step.target]
        self._tell_failover(target.name)
        self._call.answering(target)
        return Attempt(self._call, target, step, self._check_soon)

    def failed(self, attempt: Attempt, error: UpstreamError, *, midway: bool = False) -> None:
        """Take note of a failure; ``midway`` tells that the caller has seen a part of the answer."""
        target = attempt.target
        if error.outcome is Outcome.CIRCUIT_OPEN:
            self._call.skipped(target.name, target.upstream.name, error.outcome)
        self._previous = (target.name, error.outcome)
        self._course.failed(
            target.name,
            error,
            self._call.clock(),
            rest=target.cooldown.remaining,
            prefer_others=midway,
        )

    def again(self, attempt: Attempt) -> None:
        """Ask the same target once more: the question was asked wrongly."""
        self._course.again(attempt.target.name)

    @property
    def out_of_time(self) -> bool:
        """Tell whether it is time that ended the call."""
        return self._course.out_of_time(self._call.clock())

    def verdict(self) -> RouterError:
        """Return what the caller is told when there is no next attempt."""
        return self._course.verdict(self._call.clock())

    def _tell_failover(self, target: str) -> None:
        if self._previous is None or self._previous[0] == target:
            return
        before, reason = self._previous
        self._call.observation.failed_over(Failover(self._call.route, before, target, reason))
