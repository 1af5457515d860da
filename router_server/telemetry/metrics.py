"""Counts and times: records turned into the metrics of `instruments`.

Label values are bounded: the targets, providers and routes of the configuration, our own enums, and for
what a caller named by itself one word, ``direct``. Refuses to know where metrics go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from router_server.core.errors import Outcome
from router_server.core.observer import (
    AttemptObservation,
    AttemptRecord,
    AttemptStart,
    CallObservation,
    CallRecord,
    CallStart,
    Failover,
    RpcObservation,
    RpcRecord,
    RpcStart,
)
from router_server.core.status import TargetSnapshot
from router_server.telemetry import conventions, instruments, semconv
from router_server.telemetry.attempts import AttemptMetrics, sampled_span
from router_server.telemetry.callers import Callers
from router_server.telemetry.distributions import Distribution, Distributions
from router_server.telemetry.engines import observe_processes
from router_server.telemetry.metric import Metric
from router_server.telemetry.tally import Tally

Snapshot = Callable[[], Iterable[TargetSnapshot]]

_UNKNOWN = "unknown"
_NO_HEADERS: Mapping[str, str] = {}


class Metrics:
    """Sees RPCs, calls and attempts, and counts them.

    Args:
        meter: makes the instruments.
        distributions: makes the histograms.
        snapshot: gives every target's state when metrics are read. Called from other threads than the
            event loop's, so it only reads.
    """

    def __init__(self, meter: Meter, distributions: Distributions, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        create = distributions.create
        self._call_duration = create(instruments.CALL_DURATION)
        self._call_first_token = create(instruments.CALL_TIME_TO_FIRST_TOKEN)
        self._rpcs = _Rpc(create(conventions.RPC_DURATION), Callers(meter))
        self._calls = _Call(self)
        self._reused = Tally(meter, instruments.CALLS_REUSING)
        self._failovers = Tally(meter, instruments.FAILOVERS)
        self._opens = Tally(meter, instruments.BREAKER_OPENS)
        self._attempts = AttemptMetrics(meter, create)
        distributions.keep_place(meter)
        _observe_targets(meter, snapshot)
        _observe_engines(meter, snapshot)
        observe_processes(meter, snapshot)

    def rpc(self, start: RpcStart) -> RpcObservation:
        """Nothing is counted before the end."""
        del start
        return self._rpcs

    def call(self, start: CallStart) -> CallObservation:
        """Nothing is counted before the end."""
        del start
        return self._calls

    def breaker_changed(self, target: str, provider: str, before: str, after: str) -> None:
        """Count an opening."""
        del before
        if after != "open":
            return
        known = next((one for one in self._snapshot() if one.name == target), None)
        endpoint = (known.endpoint or None) if known else None
        self._opens.add(1, (known.target if known else _UNKNOWN, provider, endpoint))

    def failed_over(self, failover: Failover) -> None:
        """Count a failover."""
        self._failovers.add(
            1, (failover.route, failover.from_target, failover.to_target, failover.reason.value)
        )

    def attempt_ended(self, record: AttemptRecord) -> None:
        """Count an attempt."""
        self._attempts.record(record)

    def call_ended(self, record: CallRecord) -> None:
        """Count a call."""
        error: str | None = record.error
        if record.cancelled:
            error = Outcome.CANCELLED
        span = sampled_span()
        operation, route, arm = record.start.operation, record.start.route, record.start.arm or None
        self._call_duration.add(record.duration, (route, operation, error, arm), span)
        if record.reused is not None:
            self._reused.add(1, (route, operation, record.reused))
        if record.time_to_first_token is not None:
            self._call_first_token.add(record.time_to_first_token, (route, arm), span)


class _Rpc:
    """All RPCs: nothing is kept of one."""

    __slots__ = ("_callers", "_duration", "trace_id")

    def __init__(self, duration: Distribution, callers: Callers) -> None:
        self._duration = duration
        self._callers = callers
        self.trace_id = ""

    def ended(self, record: RpcRecord) -> None:
        error = record.code if record.code in semconv.RPC_SERVER_ERRORS else None
        labels = (semconv.GRPC, record.start.method, record.code, error)
        self._duration.add(record.duration, labels, sampled_span())
        if record.principal:
            self._callers.add(record)


class _Call:
    """All calls: nothing is kept of one."""

    __slots__ = ("_attempts", "_metrics")

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._attempts = _Attempt(metrics)

    def attempt(self, start: AttemptStart) -> AttemptObservation:
        del start
        return self._attempts

    def failed_over(self, failover: Failover) -> None:
        self._metrics.failed_over(failover)

    def ended(self, record: CallRecord) -> None:
        self._metrics.call_ended(record)


class _Attempt:
    """All attempts: nothing is kept of one."""

    __slots__ = ("_metrics", "headers")

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.headers = _NO_HEADERS

    def ended(self, record: AttemptRecord) -> None:
        self._metrics.attempt_ended(record)


def _observe_targets(meter: Meter, snapshot: Snapshot) -> None:
    readings: dict[Metric, Callable[[TargetSnapshot], float | None]] = {
        instruments.INFLIGHT: lambda one: one.inflight,
        instruments.QUEUE_DEPTH: lambda one: one.queued,
        instruments.BREAKER_STATE: lambda one: semconv.BREAKER_STATES[one.breaker],
        instruments.TARGET_HEALTHY: lambda one: None if one.healthy is None else int(one.healthy),
        instruments.CHECK_DURATION: lambda one: one.check_took,
        instruments.TARGET_COOLING: lambda one: one.cooling,
    }
    for metric, reading in readings.items():
        meter.create_observable_gauge(
            metric.name, [_reader(snapshot, reading, _target_labels)], metric.unit, metric.description
        )


def _observe_engines(meter: Meter, snapshot: Snapshot) -> None:
    readings: dict[Metric, Callable[[TargetSnapshot], float | None]] = {
        instruments.CONCURRENCY_LIMIT: lambda one: one.concurrency_limit or None,
        instruments.ENGINE_UP: lambda one: None if one.engine_up is None else int(one.engine_up),
        instruments.ENGINE_RUNNING: lambda one: one.engine.running if one.engine else None,
        instruments.ENGINE_WAITING: lambda one: one.engine.waiting if one.engine else None,
        instruments.ENGINE_CACHE: lambda one: one.engine.cache_used if one.engine else None,
    }

    def engines() -> Iterable[TargetSnapshot]:
        """Give each provider or endpoint once, however many targets it serves."""
        return {(one.provider, one.endpoint): one for one in snapshot()}.values()

    for metric, reading in readings.items():
        callback = _reader(engines, reading, _engine_labels)
        meter.create_observable_gauge(metric.name, [callback], metric.unit, metric.description)


def _engine_labels(one: TargetSnapshot) -> Mapping[str, str]:
    labels = {semconv.LABEL_PROVIDER: one.provider}
    return {**labels, semconv.LABEL_ENDPOINT: one.endpoint} if one.endpoint else labels


def _target_labels(one: TargetSnapshot) -> Mapping[str, str]:
    return {semconv.LABEL_TARGET: one.target, **_engine_labels(one)}


def _reader(
    snapshot: Snapshot,
    reading: Callable[[TargetSnapshot], float | None],
    labels: Callable[[TargetSnapshot], Mapping[str, str]],
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(options: CallbackOptions) -> Iterable[Observation]:
        del options
        for one in snapshot():
            value = reading(one)
            if value is not None:
                yield Observation(value, labels(one))

    return read
