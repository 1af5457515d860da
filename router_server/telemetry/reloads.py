"""Reloads of the configuration as metrics: how many, and whether the last one was refused."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from router_server.core.reloads import Reloads
from router_server.telemetry import instruments, semconv


def observe_reloads(meter: Meter, reloads: Reloads) -> None:
    """Make the metrics of ``reloads`` whenever they are read, on any thread."""

    def count(options: CallbackOptions) -> Iterable[Observation]:
        del options
        yield Observation(reloads.taken, {semconv.LABEL_OUTCOME: "taken"})
        yield Observation(reloads.refused, {semconv.LABEL_OUTCOME: "refused"})

    def refused(options: CallbackOptions) -> Iterable[Observation]:
        del options
        yield Observation(int(not reloads.last_ok))

    counter, gauge = instruments.CONFIG_RELOADS, instruments.CONFIG_REFUSED
    meter.create_observable_counter(counter.name, [count], counter.unit, counter.description)
    meter.create_observable_gauge(gauge.name, [refused], gauge.unit, gauge.description)
