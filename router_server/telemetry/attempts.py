"""What is counted of every attempt.

An attempt adds to a dozen series, and nearly always to the same ones as others did: these are kept by what
tells attempts apart, since to find each by its labels takes longer than to add. Refuses to know where
metrics go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from opentelemetry import trace
from opentelemetry.metrics import Meter
from opentelemetry.trace import SpanContext

from router_server.core.errors import Outcome
from router_server.core.observer import AttemptRecord, AttemptStart
from router_server.core.types import Operation, Usage
from router_server.telemetry import conventions, instruments, semconv
from router_server.telemetry.distributions import Distribution, Series
from router_server.telemetry.metric import Metric
from router_server.telemetry.tally import Label, Sum, Tally
from router_server.telemetry.unsampled import current_unsampled

DIRECT: Final = "direct"
"""The route of calls that name a provider and a model, and their target in every label."""

_NANO = 1e-9
_NOTHING_USED: Final = Usage()
_OK: Final = Outcome.OK
_RATE_LIMITED: Final = Outcome.RATE_LIMITED
_EMBED: Final = Operation.EMBED


@dataclass(slots=True)
class _Usual:
    """The series to which attempts of one kind add: all of them, and those that used tokens."""

    labels: tuple[Label, ...]
    """Target and endpoint."""
    upstream: tuple[Label, ...]
    """The values of `conventions.UPSTREAM_LABELS`."""
    attempts: Sum
    queue_wait: Series
    duration: Series
    used: _Used | None = None


@dataclass(frozen=True, slots=True)
class _Used:
    input: Sum
    output: Sum
    input_of_one: Series
    output_of_one: Series | None


class AttemptMetrics:
    """Counts attempts.

    Args:
        meter: makes the counters.
        create: makes the histograms.
    """

    def __init__(self, meter: Meter, create: Callable[[Metric], Distribution]) -> None:
        self._usual: dict[tuple[Label, ...], _Usual] = {}
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
        """Count an attempt."""
        usual, span, usage = self._of(record), sampled_span(), record.usage
        usual.attempts.total += 1
        usual.queue_wait.add(record.queue_wait)
        usual.duration.add(record.duration, span)
        if usage is not None:
            self._spent(usage, usual, embeds=record.start.operation is _EMBED, span=span)
        if record.start.hedge:
            won = semconv.WON[record.outcome is _OK]
            self._hedges.add(1, (record.start.route, usual.labels[0], won))
        if record.outcome is _RATE_LIMITED:
            self._rate_limited.add(1, usual.labels[:1])
        if record.start.operation is not _EMBED:
            self._generation(record, usual, span)

    def _of(self, record: AttemptRecord) -> _Usual:
        start = record.start
        direct = start.route == DIRECT
        key = (
            DIRECT if direct else start.target,
            start.endpoint,
            start.operation,
            start.kind,
            DIRECT if direct else start.model,
            start.server_address,
            start.server_port,
            record.outcome,
        )
        usual = self._usual.get(key)
        if usual is None:
            usual = self._usual[key] = self._begin(start, record.outcome)
        return usual

    def _begin(self, start: AttemptStart, outcome: Outcome) -> _Usual:
        target = DIRECT if start.route == DIRECT else start.target
        labels, upstream = (target, start.endpoint or None), _upstream(start)
        error = None if outcome is _OK else outcome.value
        durations = self._embeddings if start.operation is _EMBED else self._inference
        return _Usual(
            labels,
            upstream,
            self._attempts.series((*labels, outcome.value)),
            self._queue_wait.series((target,)),
            durations.series((*upstream, error)),
        )

    def _spent(self, usage: Usage, usual: _Usual, *, embeds: bool, span: SpanContext | None) -> None:
        used = usual.used
        if used is None:
            used = usual.used = self._begin_usage(usual, embeds=embeds)
        used.input.total += usage.input_tokens
        used.output.total += usage.output_tokens
        used.input_of_one.add(usage.input_tokens, span)
        if used.output_of_one is not None:
            used.output_of_one.add(usage.output_tokens, span)
        if usage.cost_nano_usd is not None:
            self._cost.add(usage.cost_nano_usd * _NANO, usual.labels[:1])

    def _begin_usage(self, usual: _Usual, *, embeds: bool) -> _Used:
        target = usual.labels[0]
        return _Used(
            self._tokens.series((target, semconv.INPUT)),
            self._tokens.series((target, semconv.OUTPUT)),
            (self._embeddings_input if embeds else self._input).series(usual.upstream),
            None if embeds else self._output.series(usual.upstream),
        )

    def _generation(self, record: AttemptRecord, usual: _Usual, span: SpanContext | None) -> None:
        if record.time_to_first_token is not None:
            self._first_chunk.add(record.time_to_first_token, usual.upstream, span)
        if record.time_per_token is not None:
            self._per_chunk.add(record.time_per_token, usual.upstream, span)
        self._count_usage(record.usage or _NOTHING_USED, (*usual.upstream, semconv.MODALITY_UNKNOWN))
        rate, times = record.tokens_per_second, record.engine
        if rate is not None:
            self._rates.add(rate, usual.labels)
        if times is None:
            return
        for phase, seconds in (("queue", times.queue), ("prefill", times.prefill), ("decode", times.decode)):
            if seconds is not None:
                self._engine_time.add(seconds, (*usual.labels, phase))

    def _count_usage(self, usage: Usage, labels: tuple[Label, ...]) -> None:
        """Count 0 as well for input and output: the conventions want a series for failed attempts too."""
        self._used_input.add(usage.input_tokens, labels)
        self._used_output.add(usage.output_tokens, labels)
        if usage.cache_read_input_tokens:
            self._cache_read.add(usage.cache_read_input_tokens, labels)
        if usage.cache_write_input_tokens:
            self._cache_write.add(usage.cache_write_input_tokens, labels)
        if usage.reasoning_output_tokens:
            self._reasoning.add(usage.reasoning_output_tokens, labels)


def sampled_span() -> SpanContext | None:
    """Return the current span, for examples of what was measured, if its trace is kept."""
    if current_unsampled() is not None:
        return None
    context = trace.get_current_span().get_span_context()
    return context if context.trace_flags.sampled else None


def _upstream(start: AttemptStart) -> tuple[Label, ...]:
    return (
        semconv.operation_name(start.operation),
        semconv.provider_name(start.kind),
        DIRECT if start.route == DIRECT else start.model,
        start.server_address or None,
        start.server_port,
    )
