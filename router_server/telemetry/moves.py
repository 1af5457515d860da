"""Users who are allotted to targets, as metrics: how many were, and how often they moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from router_server.core.moves import Moves
from router_server.telemetry import instruments, semconv

Moved = Callable[[], Sequence[Moves]]


def nobody_moved() -> Sequence[Moves]:
    """Return nothing: no route allots users."""
    return ()


def observe_moves(meter: Meter, moved: Moved) -> None:
    """Make the metrics of what ``moved`` gives whenever they are read, on any thread."""

    def allotments(options: CallbackOptions) -> Iterable[Observation]:
        del options
        for one in moved():
            # A copy in one step: calls go on being counted on the event loop's thread.
            for target, count in one.allotted.copy().items():
                yield Observation(count, {semconv.LABEL_ROUTE: one.route, semconv.LABEL_TARGET: target})

    def moves(options: CallbackOptions) -> Iterable[Observation]:
        del options
        for one in moved():
            for (before, after), count in one.moved.copy().items():
                labels = {
                    semconv.LABEL_ROUTE: one.route, semconv.LABEL_FROM: before, semconv.LABEL_TO: after
                }  # fmt: skip
                yield Observation(count, labels)

    for metric, read in ((instruments.STICKY_ALLOTMENTS, allotments), (instruments.STICKY_MOVES, moves)):
        meter.create_observable_counter(metric.name, [read], metric.unit, metric.description)
