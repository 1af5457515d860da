"""One call's way through its plan: whom to ask next, given what has failed so far.

Pure: errors go in as values, steps come out. Refuses to call, to wait, and to know how the plan was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from router_server.core.deadline import MIN_ATTEMPT, Deadline
from router_server.core.errors import (
    RULES,
    NextTarget,
    Outcome,
    Phase,
    RouterError,
    SameTarget,
    UpstreamError,
)
from router_server.core.plan import Candidate, Plan, Skip, next_well, skips
from router_server.core.record import Record
from router_server.core.verdict import deadline_error, exhausted, refusal

_MOST_WAITS = 10
"""How often one call waits for rate-limited targets: against an upstream that says "at once" for ever."""

_CLOCK_RESOLUTION = 0.001
"""Seconds by which a timer may fire before its time."""

_NONE: Final[frozenset[str]] = frozenset()


class Step(Record, frozen=True):
    """Ask this target after ``wait`` seconds; ``others_left`` tells whether another may follow.

    ``hedge`` tells that another target is being asked, so that this one is not worth waiting for a permit;
    ``waited`` that the call has waited in the queue of another endpoint of the target.
    """

    target: str
    wait: float
    others_left: bool
    last_resort: bool = False
    hedge: bool = False
    waited: bool = False


class Course:
    """One call's way through its plan: what to do next, given what has failed so far.

    Args:
        plan: the targets in order.
        deadline: when the call is over.
        backoff: the seconds to wait before the n-th retry of a target, counted from 1.

    Attributes:
        passed_over: who was found unwell by looking for who may follow; whoever tells of them empties it.
    """

    def __init__(self, plan: Plan, deadline: Deadline, backoff: Callable[[int], float]) -> None:
        self._plan = plan
        self._deadline = deadline
        self._backoff = backoff
        self._left = list(plan.order)
        self._rest = plan.rest
        self.passed_over: tuple[Skip, ...] = ()
        self._now = 0.0
        self._waited = _NONE
        self._retry: Step | None = None
        self._asked: dict[str, Candidate] = {}
        self._tries: dict[str, int] = {}
        self._rested: dict[str, float] = {}
        self._ends: dict[str, tuple[Outcome, float]] = {}
        self._final: UpstreamError | None = None
        self._refusal: RouterError | None = None
        self._phase: Phase | None = None
        self._too_long = "messages"
        self._cut_short = False
        self._waits = 0

    def others_left(self) -> bool:
        """Tell whether another target may follow; looks at the next one where it must."""
        return bool(self._left) or self._look_ahead()

    def next_step(self, now: float) -> Step | None:
        """Return what to do next, or None: nothing more. A step is taken off: asking twice gives two."""
        self._now = now
        if self._final is not None:
            return None
        remaining = self._deadline.remaining(now)
        retry, self._retry = self._retry, None
        if retry is not None and retry.wait + MIN_ATTEMPT <= remaining:
            return retry
        if not self._left and not self._look_ahead():
            return self._after_rest(now)
        if remaining < MIN_ATTEMPT:
            return None
        candidate = self._left.pop(0)
        target, group = candidate.target, candidate.group
        self._asked[target] = candidate
        others_left = bool(self._left) or self._look_ahead()
        return Step(target, 0.0, others_left, self._plan.last_resort, waited=group in self._waited)

    def beside(self, now: float, fit: Callable[[str], bool]) -> Step | None:
        """Return a step beside the one that is running: the first target left that is ``fit`` now, or None.

        It is taken off like any other, and nothing is waited for.
        """
        if self._final is not None or self._deadline.remaining(now) < MIN_ATTEMPT:
            return None
        self._now = now
        while (chosen := next((c for c in self._left if fit(c.target)), None)) is None:
            if not self._look_ahead():
                return None
        self._left.remove(chosen)
        self._asked[chosen.target] = chosen
        return Step(chosen.target, 0.0, self.others_left(), hedge=True)

    def out_of_time(self, now: float) -> bool:
        """Tell whether it is time, not targets, that ended the call."""
        least = MIN_ATTEMPT if self.others_left() or self._cut_short else _CLOCK_RESOLUTION
        return self._final is None and self._deadline.remaining(now) < least

    def again(self, target: str) -> None:
        """Put ``target`` first once more: a refused continuation is a question asked wrongly."""
        self._retry = Step(target, 0.0, self.others_left())

    def failed(
        self, target: str, error: UpstreamError, now: float, *, rest: float = 0.0, prefer_others: bool = False
    ) -> None:
        """Take note of a failure.

        Args:
            target: who failed.
            error: how.
            now: when.
            rest: seconds that the target is left alone now, after a rate limit or by its breaker.
            prefer_others: a stream broke midway: go to the next target if there is one.
        """
        rule = RULES[error.outcome]
        self._now = now
        self._ends[target] = (error.outcome, now + max(rest, error.retry_after or 0.0))
        self._cut_short = error.outcome is Outcome.TIMEOUT
        self._phase = Phase.QUEUE if error.outcome is Outcome.SATURATED else error.phase or self._phase
        self._refusal = error.refusal or self._refusal
        if error.ends_call:
            # Where it came from leads to whoever holds this course: each would keep the other.
            self._final = error.with_traceback(None)
            return
        if rule.next_target is NextTarget.IF_LARGER:
            self._keep_larger(target)
            self._too_long = "messages" if error.input_index is None else f"inputs[{error.input_index}]"
        if error.outcome is Outcome.SATURATED and (group := self._asked[target].group):
            self._waited |= {group}
        if rule.same_target is SameTarget.AFTER_COOLING:
            self._rested[target] = now + rest
        # Another endpoint of the same target is as good as a retry, and need not be waited for.
        others_first = self.others_left() if prefer_others else self._has_sibling(target)
        if rule.same_target is SameTarget.AFTER_BACKOFF and not others_first:
            self._plan_retry(target, error.retry_after or 0.0)

    def note(self, skipped: Iterable[Skip], now: float) -> None:
        """Take note of who is not asked, as it is at the moment ``now``."""
        for skip in skipped:
            self._ends[skip.target] = (skip.outcome, now + skip.wait)

    def verdict(self, now: float) -> RouterError:
        """Return what the caller is told, when there is no next step."""
        if self._final is not None:
            return self._final.refusal or refusal(self._final)
        if self.out_of_time(now):
            return deadline_error(self._phase or Phase.QUEUE)
        waits = [(outcome, max(0.0, at - now)) for outcome, at in self._ends.values()]
        return exhausted(waits, self._too_long, self._refusal)

    def _look_ahead(self) -> bool:
        """Look at further targets, up to the first that is well; tell whether one is."""
        if not self._rest:
            return False
        well, passed_over = next_well(self._rest)
        if passed_over:
            found = skips(passed_over)
            self.note(found, self._now)
            self.passed_over += tuple(found)
        self._left += well
        return bool(well)

    def _has_sibling(self, target: str) -> bool:
        group = self._asked[target].group
        return bool(group) and any(c.group == group for c in self._left)

    def _plan_retry(self, target: str, told_to_wait: float) -> None:
        retries = self._asked[target].retries
        tries = self._tries.get(target, 0) + 1
        self._tries[target] = tries
        if tries > retries or self._plan.last_resort:
            return
        # Who says when to come back is not asked sooner; whoever else is left can answer now.
        if told_to_wait <= 0 or not self.others_left():
            self._retry = Step(target, max(self._backoff(tries), told_to_wait), self.others_left())

    def _after_rest(self, now: float) -> Step | None:
        if not self._rested or self._plan.last_resort or self._waits >= _MOST_WAITS:
            return None
        target, at = min(self._rested.items(), key=lambda item: item[1])
        wait = max(0.0, at - now)
        if wait + MIN_ATTEMPT > self._deadline.remaining(now):
            return None
        del self._rested[target]
        self._waits += 1
        return Step(target, wait, others_left=False)

    def _keep_larger(self, target: str) -> None:
        refused = self._asked[target]
        if refused.group:
            self._left = [c for c in self._left if c.group != refused.group]
        window = refused.context_window
        if window is not None:
            self._left = [c for c in self._left if _may_be_larger(c, window)]
            self._rest = (c for c in self._rest if _may_be_larger(c, window))


def _may_be_larger(candidate: Candidate, window: int) -> bool:
    return candidate.context_window is None or candidate.context_window > window
