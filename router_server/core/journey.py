"""A call's way from target to target: attempts come out until one answers or the verdict is raised.

The shell around `Course`: it waits where the course says so and keeps the call's notebook. Refuses to
know what an attempt does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable

from router_server.core.attempt import Attempt
from router_server.core.call import Call
from router_server.core.course import Course
from router_server.core.errors import BreakerEffect, Outcome, RouterError, UpstreamError
from router_server.core.observer import Failover
from router_server.core.plan import Plan, Skip
from router_server.core.route import Route
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
        route: where it goes.
        plan: which of the route's targets, in order.
        check_soon: see `Attempt`.
        backoff: see `Course`.
    """

    def __init__(
        self,
        call: Call,
        route: Route,
        plan: Plan,
        check_soon: Callable[[Target, BreakerEffect], None],
        *,
        backoff: Callable[[int], float] = full_jitter,
    ) -> None:
        self._call = call
        self._route = route
        self._check_soon = check_soon
        self._hedging = route.hedging
        self._hedged = False
        if route.hedging is not None:
            route.hedging.budget.called()
        self._course = Course(plan, call.deadline, backoff)
        self._previous: tuple[str, Outcome] | None = None
        call.first_choice = plan.first
        if plan.skipped:
            self._course.note(plan.skipped, call.clock())
            self._tell_skipped(plan.skipped)
            for skip in plan.skipped:
                if skip.target == plan.first:
                    self._previous = (skip.target, skip.outcome)

    async def next(self) -> Attempt:
        """Return the next attempt, once it is due.

        Raises:
            RouterError: the verdict; there is no next attempt.
        """
        if self._course.passed_over:
            self._tell_passed_over()
        now = self._call.clock()
        step = self._course.next_step(now)
        if step is None:
            raise self.verdict()
        if step.wait > 0:
            await asyncio.sleep(step.wait)
            now = self._call.clock()
        target = self._route.endpoints[step.target]
        if self._previous is not None:
            self._tell_failover(self._previous, target.configured)
        self._call.answering(target)
        return Attempt(self._call, target, step, self._check_soon, now)

    def patience(self, attempt: Attempt) -> float | None:
        """Return the seconds that ``attempt`` may take before a hedge is due, or None: it never is."""
        if self._hedging is None or self._hedged or not self._course.others_left():
            return None
        return self._hedging.patience(attempt.target.answer_times[self._call.operation])

    def hedge(self) -> Attempt | None:
        """Return an attempt to run beside the one that is late, or None; at most once for a call.

        Its target is well and has a place free, and the route's budget allows it.
        """
        if self._hedging is None or not self._hedging.budget.allows:
            return None
        now = self._call.clock()
        step = self._course.beside(now, lambda name: self._route.endpoints[name].free)
        if step is None:
            return None
        self._hedged = True
        self._hedging.budget.spend()
        return Attempt(self._call, self._route.endpoints[step.target], step, self._check_soon, now)

    def timed(self, attempt: Attempt) -> None:
        """``attempt`` answers now, or would later: its target's next hedges are timed by that."""
        since = attempt.measures.permitted_at
        if self._hedging is not None and since is not None:
            attempt.target.answer_times[self._call.operation].add(self._call.clock() - since)

    def answering(self, attempt: Attempt) -> None:
        """``attempt`` is the one that answers."""
        self._call.answering(attempt.target)

    def handed_over(self, attempt: Attempt) -> None:
        """What had begun as a hedge is the call's attempt now: the one before it has failed."""
        if self._previous is not None:
            self._tell_failover(self._previous, attempt.target.configured)
        self._call.answering(attempt.target)

    def failed(self, attempt: Attempt, error: UpstreamError, *, midway: bool = False) -> None:
        """Take note of a failure; ``midway`` tells that the caller has seen a part of the answer."""
        target = attempt.target
        if error.outcome in {Outcome.CIRCUIT_OPEN, Outcome.BUDGET} and attempt.record is None:
            self._call.skipped(target.configured, target.provider, error.outcome)
        self._previous = (target.configured, error.outcome)
        self._course.failed(
            target.name,
            error,
            self._call.clock(),
            rest=target.ready_in,
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
        verdict = self._course.verdict(self._call.clock())
        self._tell_passed_over()
        return verdict

    def _tell_passed_over(self) -> None:
        self._tell_skipped(self._course.passed_over)
        self._course.passed_over = ()

    def _tell_skipped(self, skipped: Iterable[Skip]) -> None:
        for skip in skipped:
            self._call.skipped(skip.target, self._route.providers[skip.target], skip.outcome)

    def _tell_failover(self, previous: tuple[str, Outcome], target: str) -> None:
        before, reason = previous
        if before != target:
            self._call.observation.failed_over(Failover(self._call.start.route, before, target, reason))
