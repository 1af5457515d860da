"""How quick each target has lately been to begin: a moving average for each operation.

It is told of ends alone, so that calls of routes which do not ask cost nothing. Refuses to know who is next.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from router_server.core.errors import Outcome
from router_server.core.observer import AttemptRecord, CallRecord
from router_server.core.types import Operation

_NEWEST = 0.2
"""The weight of the newest time in the average: the last ten make nine tenths of it."""

_MOST = 4096
"""Targets that are remembered: callers who may name models directly can name any number."""


@dataclass(frozen=True, slots=True)
class _Average:
    seconds: float
    at: float


class SpeedBoard:
    """The moving averages of all targets, in seconds from the permit to the first token of a stream.

    Of unary calls it is the whole answer. A timeout counts as the time that was waited; any other failure
    says nothing, for it would make a target that refuses quickly look quick.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._averages: dict[tuple[str, Operation], _Average] = {}

    def expected(self, target: str, operation: Operation) -> float | None:
        """Return the seconds that ``target`` needs to begin, or None where nothing is known."""
        average = self._averages.get((target, operation))
        return None if average is None else average.seconds

    def age(self, target: str, operation: Operation) -> float:
        """Return the seconds since that was last measured; infinite where it never was."""
        average = self._averages.get((target, operation))
        return math.inf if average is None else self._clock() - average.at

    def measured(self, target: str, operation: Operation, seconds: float) -> None:
        """Take note of a time."""
        key = (target, operation)
        before = self._averages.pop(key, None)
        value = seconds if before is None else before.seconds + _NEWEST * (seconds - before.seconds)
        self._averages[key] = _Average(value, self._clock())
        if len(self._averages) > _MOST:
            del self._averages[next(iter(self._averages))]

    def ended(self, record: CallRecord | AttemptRecord) -> None:
        """Take note of how long an attempt took."""
        if isinstance(record, CallRecord) or record.outcome not in {Outcome.OK, Outcome.TIMEOUT}:
            return
        waited = record.duration - record.queue_wait
        first = record.time_to_first_token
        self.measured(record.start.target, record.start.operation, waited if first is None else first)
