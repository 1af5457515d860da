"""Counts and times: records turned into the metrics of `instruments`.

Label values are bounded: the targets, providers and routes of the configuration, our own enums, and for
what a caller named by itself one word, ``direct``. Refuses to know where metrics go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

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
from router_server.core.types import Operation, Usage
from router_server.telemetry import instruments, semconv
from router_server.telemetry.tally import Label, Tally

Snapshot = Callable[[], Iterable[TargetSnapshot]]

Labels = dict[str, str | int]

DIRECT = "direct"
"""The route of calls that name a provider and a model, and their target in every label."""

_UNKNOWN = "unknown"
_NANO = 1e-9
_NO_HEADERS: Mapping[str, str] = {}


class Metrics:
    """Sees RPCs, calls and attempts, and counts them.

    Args:
        meter: makes the instruments.
        snapshot: gives every target's state when metrics are read. Called from other threads than the
            event loop's, so it only reads.
    """

    def __init__(self, meter: Meter, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._rpc_duration = _histogram(meter, instruments.RPC_DURATION)
        self._call_duration = _histogram(meter, instruments.CALL_DURATION)
        self._call_first_token = _histogram(meter, instruments.CALL_TIME_TO_FIRST_TOKEN)
        self._failovers = Tally(meter, instruments.FAILOVERS)
        self._opens = Tally(meter, instruments.BREAKER_OPENS)
        self._attempts = _AttemptInstruments(meter)
        _observe_targets(meter, snapshot)
        _observe_providers(meter, snapshot)

    def rpc(self, start: RpcStart) -> RpcObservation:
        """Nothing is counted before the end."""
        del start
        return _Rpc(self._rpc_duration)

    def call(self, start: CallStart) -> CallObservation:
        """Nothing is counted before the end."""
        del start
        return _Call(self)

    def breaker_changed(self, target: str, provider: str, before: str, after: str) -> None:
        """Count an opening."""
        del before
        if after != "open":
            return
        known = any(one.target == target for one in self._snapshot())
        self._opens.add(1, (target if known else _UNKNOWN, provider))

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
        route = {semconv.LABEL_ROUTE: record.start.route}
        labels = {**route, semconv.LABEL_OPERATION: record.start.operation.value}
        if record.cancelled:
            labels[semconv.ERROR_TYPE] = Outcome.CANCELLED.value
        elif record.error is not None:
            labels[semconv.ERROR_TYPE] = record.error.value
        self._call_duration.record(record.duration, labels)
        if record.time_to_first_token is not None:
            self._call_first_token.record(record.time_to_first_token, route)


class _AttemptInstruments:
    """What is counted of every attempt."""

    def __init__(self, meter: Meter) -> None:
        self._attempts = Tally(meter, instruments.ATTEMPTS_MADE)
        self._rate_limited = Tally(meter, instruments.RATE_LIMITED)
        self._queue_wait = _histogram(meter, instruments.QUEUE_WAIT)
        self._tokens = Tally(meter, instruments.TOKENS_USED)
        self._cost = Tally(meter, instruments.COST)
        self._inference = _histogram(meter, instruments.INFERENCE_DURATION)
        self._first_chunk = _histogram(meter, instruments.TIME_TO_FIRST_CHUNK)
        self._per_chunk = _histogram(meter, instruments.TIME_PER_OUTPUT_CHUNK)
        self._input = _histogram(meter, instruments.OPERATION_INPUT)
        self._output = _histogram(meter, instruments.OPERATION_OUTPUT)
        self._used_input = Tally(meter, instruments.USAGE_INPUT)
        self._used_output = Tally(meter, instruments.USAGE_OUTPUT)
        self._cache_read = Tally(meter, instruments.USAGE_CACHE_READ)
        self._cache_write = Tally(meter, instruments.USAGE_CACHE_WRITE)
        self._reasoning = Tally(meter, instruments.USAGE_REASONING)
        self._embeddings = _histogram(meter, instruments.EMBEDDINGS_DURATION)
        self._embeddings_input = _histogram(meter, instruments.EMBEDDINGS_INPUT)

    def record(self, record: AttemptRecord) -> None:
        target = DIRECT if record.start.route == DIRECT else record.start.target
        self._attempts.add(1, (target, record.outcome.value))
        self._queue_wait.record(record.queue_wait, {semconv.LABEL_TARGET: target})
        if record.outcome is Outcome.RATE_LIMITED:
            self._rate_limited.add(1, (target,))
        if record.usage is not None:
            self._spent(record.usage, target)
        if record.start.operation is Operation.EMBED:
            self._embedding(record)
        else:
            self._generation(record)

    def _spent(self, usage: Usage, target: str) -> None:
        self._tokens.add(usage.input_tokens, (target, semconv.INPUT))
        self._tokens.add(usage.output_tokens, (target, semconv.OUTPUT))
        if usage.cost_nano_usd is not None:
            self._cost.add(usage.cost_nano_usd * _NANO, (target,))

    def _embedding(self, record: AttemptRecord) -> None:
        labels = _named(_upstream(record.start))
        self._embeddings.record(record.duration, _with_error(labels, record.outcome))
        if record.usage is not None:
            self._embeddings_input.record(record.usage.input_tokens, labels)

    def _generation(self, record: AttemptRecord) -> None:
        upstream = _upstream(record.start)
        labels = _named(upstream)
        self._inference.record(record.duration, _with_error(labels, record.outcome))
        if record.time_to_first_token is not None:
            self._first_chunk.record(record.time_to_first_token, labels)
        if record.time_per_token is not None:
            self._per_chunk.record(record.time_per_token, labels)
        if record.usage is not None:
            self._input.record(record.usage.input_tokens, labels)
            self._output.record(record.usage.output_tokens, labels)
        self._used(record.usage or Usage(), (*upstream, semconv.MODALITY_UNKNOWN))

    def _used(self, usage: Usage, labels: tuple[Label, ...]) -> None:
        """Count 0 as well for input and output: the conventions want a series for failed attempts too."""
        self._used_input.add(usage.input_tokens, labels)
        self._used_output.add(usage.output_tokens, labels)
        if usage.cache_read_input_tokens:
            self._cache_read.add(usage.cache_read_input_tokens, labels)
        if usage.cache_write_input_tokens:
            self._cache_write.add(usage.cache_write_input_tokens, labels)
        if usage.reasoning_output_tokens:
            self._reasoning.add(usage.reasoning_output_tokens, labels)


class _Rpc:
    __slots__ = ("_duration", "trace_id")

    def __init__(self, duration: Histogram) -> None:
        self._duration = duration
        self.trace_id = ""

    def ended(self, record: RpcRecord) -> None:
        labels = {
            semconv.RPC_SYSTEM_NAME: semconv.GRPC,
            semconv.RPC_METHOD: record.start.method,
            semconv.RPC_RESPONSE_STATUS_CODE: record.code,
        }
        if record.code in semconv.RPC_SERVER_ERRORS:
            labels[semconv.ERROR_TYPE] = record.code
        self._duration.record(record.duration, labels)


class _Call:
    """A call and all of its attempts: neither keeps a state."""

    __slots__ = ("_metrics",)

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def attempt(self, start: AttemptStart) -> AttemptObservation:
        del start
        return _Attempt(self._metrics)

    def failed_over(self, failover: Failover) -> None:
        self._metrics.failed_over(failover)

    def ended(self, record: CallRecord) -> None:
        self._metrics.call_ended(record)


class _Attempt:
    __slots__ = ("_metrics", "headers")

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.headers = _NO_HEADERS

    def ended(self, record: AttemptRecord) -> None:
        self._metrics.attempt_ended(record)


def _upstream(start: AttemptStart) -> tuple[Label, ...]:
    """Return the values of `instruments.UPSTREAM_LABELS`."""
    return (
        semconv.operation_name(start.operation),
        semconv.provider_name(start.kind),
        DIRECT if start.route == DIRECT else start.model,
        start.server_address or None,
        start.server_port,
    )


def _named(values: tuple[Label, ...]) -> Labels:
    pairs = zip(instruments.UPSTREAM_LABELS, values, strict=True)
    return {name: value for name, value in pairs if value is not None}


def _with_error(labels: Labels, outcome: Outcome) -> Labels:
    return labels if outcome is Outcome.OK else {**labels, semconv.ERROR_TYPE: outcome.value}


def _histogram(meter: Meter, metric: instruments.Metric) -> Histogram:
    return meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.buckets
    )


def _observe_targets(meter: Meter, snapshot: Snapshot) -> None:
    readings: dict[instruments.Metric, Callable[[TargetSnapshot], float | None]] = {
        instruments.INFLIGHT: lambda one: one.inflight,
        instruments.QUEUE_DEPTH: lambda one: one.queued,
        instruments.BREAKER_STATE: lambda one: semconv.BREAKER_STATES[one.breaker],
        instruments.TARGET_HEALTHY: lambda one: None if one.healthy is None else int(one.healthy),
        instruments.TARGET_COOLING: lambda one: one.cooling,
    }
    for metric, reading in readings.items():
        meter.create_observable_gauge(
            metric.name, [_reader(snapshot, reading)], metric.unit, metric.description
        )


def _observe_providers(meter: Meter, snapshot: Snapshot) -> None:
    def read(options: CallbackOptions) -> Iterable[Observation]:
        del options
        limits = {one.provider: one.concurrency_limit for one in snapshot()}
        return [Observation(limit, {semconv.LABEL_PROVIDER: name}) for name, limit in limits.items() if limit]

    metric = instruments.CONCURRENCY_LIMIT
    meter.create_observable_gauge(metric.name, [read], metric.unit, metric.description)


def _reader(
    snapshot: Snapshot, reading: Callable[[TargetSnapshot], float | None]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(options: CallbackOptions) -> Iterable[Observation]:
        del options
        for one in snapshot():
            value = reading(one)
            if value is not None:
                yield Observation(
                    value, {semconv.LABEL_TARGET: one.target, semconv.LABEL_PROVIDER: one.provider}
                )

    return read
