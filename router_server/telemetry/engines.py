"""The metrics of the engines that the router runs, from how their views see them. Refuses to run any."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from router_server.core.engine import EngineState, EngineStatus
from router_server.core.status import TargetSnapshot
from router_server.telemetry import instruments, semconv

Snapshot = Callable[[], Iterable[TargetSnapshot]]


def observe_processes(meter: Meter, snapshot: Snapshot) -> None:
    """Make the instruments of every engine behind the targets of ``snapshot``."""
    gauge, counter = meter.create_observable_gauge, meter.create_observable_counter
    for create, metric, reading in (
        (counter, instruments.ENGINE_RESTARTS, _restarts),
        (counter, instruments.ENGINE_WAKES, _wakes),
        (counter, instruments.ENGINE_ASLEEP, _asleep),
        (gauge, instruments.ENGINE_START_DURATION, _start_duration),
        (gauge, instruments.ENGINE_STATE, _states),
    ):
        create(metric.name, [_reader(snapshot, reading)], metric.unit, metric.description)


Reading = Callable[[EngineStatus], Iterable[tuple[float, dict[str, str]]]]


def _reader(snapshot: Snapshot, reading: Reading) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(options: CallbackOptions) -> Iterable[Observation]:
        del options
        engines = {one.provider: one.process for one in snapshot() if one.process is not None}
        for provider, status in engines.items():
            for value, labels in reading(status):
                yield Observation(value, {semconv.LABEL_PROVIDER: provider, **labels})

    return read


def _restarts(status: EngineStatus) -> Iterable[tuple[float, dict[str, str]]]:
    yield status.restarts, {}


def _wakes(status: EngineStatus) -> Iterable[tuple[float, dict[str, str]]]:
    yield status.wakes, {}


def _asleep(status: EngineStatus) -> Iterable[tuple[float, dict[str, str]]]:
    yield status.asleep, {}


def _start_duration(status: EngineStatus) -> Iterable[tuple[float, dict[str, str]]]:
    if status.start_duration is not None:
        yield status.start_duration, {}


def _states(status: EngineStatus) -> Iterable[tuple[float, dict[str, str]]]:
    for state in EngineState:
        yield int(state is status.state), {semconv.LABEL_STATE: state.value}
