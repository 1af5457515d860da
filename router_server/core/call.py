"""One call on its way: what is known of it so far, for its trail, its record and its result.

A mutable notebook with no decisions in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from router_server.core.deadline import deadline_of
from router_server.core.errors import AttemptSummary, Outcome, Phase, Reason, RouterError
from router_server.core.funds import Funds
from router_server.core.needs import estimate_prompt
from router_server.core.observer import AttemptRecord, CallRecord, CallStart, Observer
from router_server.core.record import Record
from router_server.core.results import Invocation, Trail
from router_server.core.target import Target
from router_server.core.types import ChatRequest, EmbedRequest, Operation, Usage

NOBODY: Final[frozenset[str]] = frozenset()
"""For sets that stay empty in nearly every call: one of its own is 0.2 KiB of an open stream."""


class CallKind(Record, frozen=True):
    """What all calls of one operation have in common.

    Attributes:
        operation: what is asked.
        default_timeout: seconds, where the caller gives none.
        observer: told of each call's start, and of its end when the call is left.
        clock: monotonic seconds.
    """

    operation: Operation
    default_timeout: float
    observer: Observer
    clock: Callable[[], float]


class Call:
    """The state of one call, from its plan to its record: whoever begins it says how it ended, come what may.

    Args:
        kind: what it has in common with others.
        invocation: what the edge knows.
        route: the name in the telemetry, a configured one or ``direct``.
        request: what the caller sent.
        arm: see `CallStart`.

    Attributes:
        funds: what its attempts are paid from; None where nothing has a budget.
        first_choice: whom its plan prefers.
        asked: how many attempts have begun.
        blamed: targets whose breakers have counted a failure of it: once per call.
        first_delta_at: when its caller was given the first piece of a stream.
        usage: of the attempt that answered.
        reported_model: what the upstream calls the model that answers.
    """

    def __init__(
        self,
        kind: CallKind,
        invocation: Invocation,
        route: str,
        request: ChatRequest | EmbedRequest,
        arm: str = "",
    ) -> None:
        self.clock = clock = kind.clock
        self.funds: Funds | None = None
        self.began = began = clock()
        self.operation = kind.operation
        self.request = request
        self.deadline = invocation.deadline or deadline_of(began, invocation.timeout, kind.default_timeout)
        principal = "" if invocation.principal is None else invocation.principal.subject
        self.start = CallStart(invocation.call_id, kind.operation, route, request, arm, principal)
        self.observation = kind.observer.call(self.start)
        self.prompt_tokens = estimate_prompt(request)
        self.records: list[AttemptRecord] = []
        self.summaries: list[AttemptSummary] = []
        self.asked = 0
        self.first_choice = ""
        self.blamed = NOBODY
        self.usage: Usage | None = None
        self.reported_model = ""
        self._answering: Target | None = None
        self.first_delta_at: float | None = None
        self._tell = invocation.ended

    def time_left(self) -> float:
        """Return the seconds until the deadline."""
        return self.deadline.remaining(self.clock())

    def skipped(self, target: str, provider: str, outcome: Outcome) -> None:
        """Note that a target was passed over."""
        self.summaries.append(AttemptSummary(target, provider, outcome, error_reason="skipped"))

    def answering(self, target: Target, reported_model: str = "") -> None:
        """Note who is answering."""
        self._answering = target
        self.reported_model = reported_model

    def attempted(self, record: AttemptRecord) -> None:
        """Note a finished attempt."""
        self.records.append(record)
        self.summaries.append(
            AttemptSummary(
                record.start.target,
                record.start.provider,
                record.outcome,
                record.duration,
                record.time_to_first_token,
                record.error_reason,
                record.usage,
            )
        )

    def trail(self, running: AttemptSummary | None = None) -> Trail:
        """Return the trail so far; ``running`` is the attempt that is still open, if one is."""
        target = self._answering
        if target is None:
            return Trail(self.start.route, "", "", "", tuple(self.summaries))
        reported = self.reported_model
        return Trail(
            route=self.start.route,
            target=target.configured,
            provider=target.provider,
            upstream_model=target.settings.model,
            attempts=(*self.summaries, running) if running else tuple(self.summaries),
            reported_model=reported if reported != target.settings.model else "",
            fallback=target.configured != self.first_choice,
        )

    def billed(self) -> Usage | None:
        """Return what all attempts consumed together, or None where nobody knows."""
        usages = [record.usage for record in self.records if record.usage is not None]
        return sum(usages[1:], usages[0]) if usages else None

    def ended(self, error: BaseException | None = None) -> None:
        """Tell the observer of the call's end, whatever it is; a `RouterError` is given the attempts."""
        if error is None:
            self._end()
        elif isinstance(error, RouterError):
            error.attempts = tuple(self.summaries)
            self._end(error.reason, error.phase)
        elif isinstance(error, asyncio.CancelledError):
            self._end(cancelled=True)
        else:
            self._end(Reason.INTERNAL)

    def _end(
        self, error: Reason | None = None, phase: Phase | None = None, *, cancelled: bool = False
    ) -> None:
        answered = error is None and not cancelled
        target = self._answering if answered else None
        record = CallRecord(
            start=self.start,
            duration=self.clock() - self.began,
            target=target.configured if target else "",
            provider=target.provider if target else "",
            model=target.settings.model if target else "",
            attempts=tuple(self.records),
            error=error,
            cancelled=cancelled,
            phase=phase,
            time_to_first_token=None if self.first_delta_at is None else self.first_delta_at - self.began,
            usage=self.usage if answered else self.billed(),
            user_id=self.request.user_id,
            labels=self.request.labels,
        )
        self.observation.ended(record)
        if self._tell is not None:
            self._tell(record)
