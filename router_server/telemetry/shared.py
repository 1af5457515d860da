"""The shared state as metrics: whether it is in use, and what came of asking it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from router_server.core.shared import SharedSnapshot
from router_server.telemetry import instruments, semconv

Shared = Callable[[], SharedSnapshot | None]


def nothing_shared() -> None:
    """Return None: this process is on its own by configuration."""


def observe_shared(meter: Meter, shared: Shared) -> None:
    """Make the metrics of what ``shared`` gives whenever they are read, on any thread."""

    def degraded(options: CallbackOptions) -> Iterable[Observation]:
        del options
        snapshot = shared()
        return () if snapshot is None else (Observation(int(snapshot.degraded)),)

    def operations(options: CallbackOptions) -> Iterable[Observation]:
        del options
        snapshot = shared()
        for (operation, outcome), count in snapshot.asked.items() if snapshot else ():
            yield Observation(count, {semconv.LABEL_OPERATION: operation, semconv.LABEL_OUTCOME: outcome})

    gauge, counter = instruments.STATE_DEGRADED, instruments.STATE_OPERATIONS
    meter.create_observable_gauge(gauge.name, [degraded], gauge.unit, gauge.description)
    meter.create_observable_counter(counter.name, [operations], counter.unit, counter.description)
