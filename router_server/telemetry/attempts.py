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
    generated: _Generated | None
    """None where vectors are made."""
    used: _Used | None = None
    rate: Series | None = None
    cost: Sum | None = None


@dataclass(frozen=True, slots=True)
class _Generated:
    labels: tuple[Label, ...]
    """The values of `conventions.UPSTREAM_LABELS`, and what was generated."""
    input: Sum
    output: Sum


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
            self._spent(usage, usual, span)
        if record.start.hedge:
            won = semconv.WON[record.outcome is _OK]
            self._hedges.add(1, (record.start.route, usual.labels[0], won))
        if record.outcome is _RATE_LIMITED:
            self._rate_limited.add(1, usual.labels[:1])
        if usual.generated is not None:
            self._generation(record, usual, usual.generated, span)

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
        embeds = start.operation is _EMBED
        durations = self._embeddings if embeds else self._inference
        return _Usual(
            labels,
            upstream,
            self._attempts.series((*labels, outcome.value)),
            self._queue_wait.series((target,)),
            durations.series((*upstream, error)),
            None if embeds else self._begin_generation((*upstream, semconv.MODALITY_UNKNOWN)),
        )

    def _begin_generation(self, labels: tuple[Label, ...]) -> _Generated:
        # At 0 as well: the conventions want a series for failed attempts too.
        return _Generated(labels, self._used_input.series(labels), self._used_output.series(labels))

    def _spent(self, usage: Usage, usual: _Usual, span: SpanContext | None) -> None:
        used = usual.used
        if used is None:
            used = usual.used = self._begin_usage(usual)
        used.input.total += usage.input_tokens
        used.output.total += usage.output_tokens
        used.input_of_one.add(usage.input_tokens, span)
        if used.output_of_one is not None:
            used.output_of_one.add(usage.output_tokens, span)
        if usage.cost_nano_usd is not None:
            if usual.cost is None:
                usual.cost = self._cost.series(usual.labels[:1])
            usual.cost.total += usage.cost_nano_usd * _NANO

    def _begin_usage(self, usual: _Usual) -> _Used:
        target, embeds = usual.labels[0], usual.generated is None
        return _Used(
            self._tokens.series((target, semconv.INPUT)),
            self._tokens.series((target, semconv.OUTPUT)),
            (self._embeddings_input if embeds else self._input).series(usual.upstream),
            None if embeds else self._output.series(usual.upstream),
        )

    def _generation(
        self, record: AttemptRecord, usual: _Usual, generated: _Generated, span: SpanContext | None
    ) -> None:
        if record.time_to_first_token is not None:
            self._first_chunk.add(record.time_to_first_token, usual.upstream, span)
        if record.time_per_token is not None:
            self._per_chunk.add(record.time_per_token, usual.upstream, span)
        if record.usage is not None:
            self._count_usage(record.usage, generated)
        rate, times = record.tokens_per_second, record.engine
        if rate is not None:
            if usual.rate is None:
                usual.rate = self._rates.series(usual.labels)
            usual.rate.add(rate)
        if times is None:
            return
        for phase, seconds in (("queue", times.queue), ("prefill", times.prefill), ("decode", times.decode)):
            if seconds is not None:
                self._engine_time.add(seconds, (*usual.labels, phase))

    def _count_usage(self, usage: Usage, generated: _Generated) -> None:
        generated.input.total += usage.input_tokens
        generated.output.total += usage.output_tokens
        if usage.cache_read_input_tokens:
            self._cache_read.add(usage.cache_read_input_tokens, generated.labels)
        if usage.cache_write_input_tokens:
            self._cache_write.add(usage.cache_write_input_tokens, generated.labels)
        if usage.reasoning_output_tokens:
            self._reasoning.add(usage.reasoning_output_tokens, generated.labels)


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
