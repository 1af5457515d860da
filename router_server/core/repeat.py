"""A call that is given the answer of another one: what of it is told to the observer, and what to its caller.

To the observer it is a call like any other, without attempts. Refuses to know where the answer comes from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any

from router_server.core.errors import Phase, Reason, RouterError
from router_server.core.observer import CallRecord, CallStart, Observer, Reused
from router_server.core.record import replace
from router_server.core.results import ChatResult, EmbedResult, Finished, Invocation, Reset, Started, Trail
from router_server.core.types import ChatRequest, Delta, EmbedRequest, Operation, Usage


class Repeat:
    """One call, from its start to its record: ``with repeat`` it ends with one, come what may.

    Args:
        start: what is told of its beginning.
        reused: where the answer comes from.
        began: when its caller asked, on ``clock``.
        observer: is told.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        start: CallStart,
        reused: Reused,
        began: float,
        observer: Observer,
        clock: Callable[[], float],
    ) -> None:
        self._start = start
        self._reused = reused
        self._began = began
        self._clock = clock
        self._observation = observer.call(start)
        self._trail = Trail(start.route, "", "", "")
        self._usage: Usage | None = None
        self._first_delta_at: float | None = None

    def given(self, event: Any) -> Any:
        """Return an event of the answer, or the whole of it, as it is for this caller: it costs nothing."""
        if isinstance(event, Delta):
            self._first_delta_at = self._first_delta_at or self._clock()
            return event
        if isinstance(event, ChatResult | EmbedResult | Started | Reset | Finished):
            self._trail = replace(event.trail, attempts=(), cache_hit=True)
            event = replace(event, trail=self._trail)
        if isinstance(event, ChatResult | EmbedResult | Started):
            event = replace(event, call_id=self._start.call_id, model=self._start.request.model)
        if isinstance(event, ChatResult | EmbedResult | Finished):
            self._usage = replace(event.usage, cost_nano_usd=0)
            event = replace(event, usage=self._usage)
        return event

    def __enter__(self) -> None:
        """Begin what is recorded."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Tell the observer of the call's end, whatever it is."""
        if error is None:
            self._end()
        elif isinstance(error, RouterError):
            self._end(error.reason, error.phase)
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._end(cancelled=True)
        else:
            self._end(Reason.INTERNAL)

    def _end(
        self, error: Reason | None = None, phase: Phase | None = None, *, cancelled: bool = False
    ) -> None:
        first, request = self._first_delta_at, self._start.request
        self._observation.ended(
            CallRecord(
                start=self._start,
                duration=self._clock() - self._began,
                target=self._trail.target,
                provider=self._trail.provider,
                model=self._trail.upstream_model,
                error=error,
                cancelled=cancelled,
                phase=phase,
                time_to_first_token=None if first is None else first - self._began,
                usage=self._usage,
                user_id=request.user_id,
                labels=request.labels,
                reused=self._reused,
            )
        )


def start_of(
    operation: Operation, route: str, request: ChatRequest | EmbedRequest, invocation: Invocation
) -> CallStart:
    """Return what is told of the beginning of a call."""
    principal = "" if invocation.principal is None else invocation.principal.subject
    return CallStart(invocation.call_id, operation, route, request, principal=principal)
