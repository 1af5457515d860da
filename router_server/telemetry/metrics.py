"""Counts and times: records turned into the metrics of `instruments`.

Label values are bounded: the targets, providers and routes of the configuration, our own enums, and for
what a caller named by itself one word, ``direct``. Refuses to know where metrics go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.trace import SpanContext

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
from router_server.telemetry import conventions, instruments, semconv
from router_server.telemetry.callers import Callers
from router_server.telemetry.distributions import Distribution, Distributions
from router_server.telemetry.engines import observe_processes
from router_server.telemetry.metric import Metric
from router_server.telemetry.tally import Label, Tally

Snapshot = Callable[[], Iterable[TargetSnapshot]]

DIRECT = "direct"
"""The route of calls that name a provider and a model, and their target in every label."""

_UNKNOWN = "unknown"
_NANO = 1e-9
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
        self._attempts = _AttemptInstruments(meter, create)
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
        error = record.error.value if record.error is not None else None
        if record.cancelled:
            error = Outcome.CANCELLED.value
        span = _sampled_span()
        route, arm = record.start.route, record.start.arm or None
        self._call_duration.add(record.duration, (route, record.start.operation.value, error, arm), span)
        if record.reused is not None:
            self._reused.add(1, (route, record.start.operation.value, record.reused.value))
        if record.time_to_first_token is not None:
            self._call_first_token.add(record.time_to_first_token, (route, arm), span)


class _AttemptInstruments:
    """What is counted of every attempt."""

    def __init__(self, meter: Meter, create: Callable[[Metric], Distribution]) -> None:
        self._attempts = Tally(meter, instruments.ATTEMPTS_MADE)
        self._hedges = Tally(meter, instruments.HEDGES)
        self._rate_limited = Tally(meter, instruments.RATE_LIMITED)
        self._queue_wait = create(instruments.QUEUE_WAIT)
        self._tokens = Tally(meter, instruments.TOKENS_USED)
        self._cost = Tally(meter, instruments.COST)
        self._rates = create(instruments.TOKENS_PER_SECOND)
        self._engine_time = create(instruments.ENGINE_TIME)
        self._inference = create(conventions.INFERENCE_DURATION)
        self._first_chunk = create(conventions.TIME_TO_FIRST_CHUNK)
        self._per_chunk = create(conventions.TIME_PER_OUTPUT_CHUNK)
        self._input = create(conventions.OPERATION_INPUT)
        self._output = create(conventions.OPERATION_OUTPUT)
        self._used_input = Tally(meter, conventions.USAGE_INPUT)
        self._used_output = Tally(meter, conventions.USAGE_OUTPUT)
        self._cache_read = Tally(meter, conventions.USAGE_CACHE_READ)
        self._cache_write = Tally(meter, conventions.USAGE_CACHE_WRITE)
        self._reasoning = Tally(meter, conventions.USAGE_REASONING)
        self._embeddings = create(conventions.EMBEDDINGS_DURATION)
        self._embeddings_input = create(conventions.EMBEDDINGS_INPUT)

    def record(self, record: AttemptRecord) -> None:
        target = DIRECT if record.start.route == DIRECT else record.start.target
        self._attempts.add(1, (target, record.start.endpoint or None, record.outcome.value))
        self._queue_wait.add(record.queue_wait, (target,))
        if record.start.hedge:
            self._hedges.add(1, (record.start.route, target, semconv.WON[record.outcome is Outcome.OK]))
        if record.outcome is Outcome.RATE_LIMITED:
            self._rate_limited.add(1, (target,))
        if record.usage is not None:
            self._spent(record.usage, target)
        if record.start.operation is Operation.EMBED:
            self._embedding(record)
        else:
            self._generation(record)
            self._pace(record, (target, record.start.endpoint or None))

    def _spent(self, usage: Usage, target: str) -> None:
        self._tokens.add(usage.input_tokens, (target, semconv.INPUT))
        self._tokens.add(usage.output_tokens, (target, semconv.OUTPUT))
        if usage.cost_nano_usd is not None:
            self._cost.add(usage.cost_nano_usd * _NANO, (target,))

    def _embedding(self, record: AttemptRecord) -> None:
        upstream, span = _upstream(record.start), _sampled_span()
        self._embeddings.add(record.duration, (*upstream, _error(record.outcome)), span)
        if record.usage is not None:
            self._embeddings_input.add(record.usage.input_tokens, upstream, span)

    def _generation(self, record: AttemptRecord) -> None:
        upstream, span = _upstream(record.start), _sampled_span()
        self._inference.add(record.duration, (*upstream, _error(record.outcome)), span)
        if record.time_to_first_token is not None:
            self._first_chunk.add(record.time_to_first_token, upstream, span)
        if record.time_per_token is not None:
            self._per_chunk.add(record.time_per_token, upstream, span)
        if record.usage is not None:
            self._input.add(record.usage.input_tokens, upstream, span)
            self._output.add(record.usage.output_tokens, upstream, span)
        self._used(record.usage or Usage(), (*upstream, semconv.MODALITY_UNKNOWN))

    def _pace(self, record: AttemptRecord, labels: tuple[Label, ...]) -> None:
        rate, times = record.tokens_per_second, record.engine
        if rate is not None:
            self._rates.add(rate, labels)
        if times is None:
            return
        for phase, seconds in (("queue", times.queue), ("prefill", times.prefill), ("decode", times.decode)):
            if seconds is not None:
                self._engine_time.add(seconds, (*labels, phase))

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
    """All RPCs: nothing is kept of one."""

    __slots__ = ("_callers", "_duration", "trace_id")

    def __init__(self, duration: Distribution, callers: Callers) -> None:
        self._duration = duration
        self._callers = callers
        self.trace_id = ""

    def ended(self, record: RpcRecord) -> None:
        error = record.code if record.code in semconv.RPC_SERVER_ERRORS else None
        labels = (semconv.GRPC, record.start.method, record.code, error)
        self._duration.add(record.duration, labels, _sampled_span())
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


def _sampled_span() -> SpanContext | None:
    """Return the current span, for examples of what was measured, if its trace is kept."""
    context = trace.get_current_span().get_span_context()
    return context if context.trace_flags.sampled else None


def _upstream(start: AttemptStart) -> tuple[Label, ...]:
    """Return the values of `conventions.UPSTREAM_LABELS`."""
    return (
        semconv.operation_name(start.operation),
        semconv.provider_name(start.kind),
        DIRECT if start.route == DIRECT else start.model,
        start.server_address or None,
        start.server_port,
    )


def _error(outcome: Outcome) -> str | None:
    return None if outcome is Outcome.OK else outcome.value


def _observe_targets(meter: Meter, snapshot: Snapshot) -> None:
    readings: dict[Metric, Callable[[TargetSnapshot], float | None]] = {
        instruments.INFLIGHT: lambda one: one.inflight,
        instruments.QUEUE_DEPTH: lambda one: one.queued,
        instruments.BREAKER_STATE: lambda one: semconv.BREAKER_STATES[one.breaker],
        instruments.TARGET_HEALTHY: lambda one: None if one.healthy is None else int(one.healthy),
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
