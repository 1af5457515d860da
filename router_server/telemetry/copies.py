"""The copies of calls that shadows are sent, as a metric: how many were sent, how many dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from router_server.core.shadow import ShadowCount
from router_server.telemetry import instruments, semconv

Copies = Callable[[], Sequence[ShadowCount]]


def nothing_copied() -> Sequence[ShadowCount]:
    """Return nothing: no route has a shadow."""
    return ()


def observe_copies(meter: Meter, copies: Copies) -> None:
    """Make the metric of what ``copies`` gives whenever it is read, on any thread."""

    def read(options: CallbackOptions) -> Iterable[Observation]:
        del options
        for one in copies():
            for outcome, count in (("sent", one.sent), ("dropped", one.dropped)):
                yield Observation(count, {semconv.LABEL_ROUTE: one.route, semconv.LABEL_OUTCOME: outcome})

    metric = instruments.SHADOWS
    meter.create_observable_counter(metric.name, [read], metric.unit, metric.description)
