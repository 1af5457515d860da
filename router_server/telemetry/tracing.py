"""Spans: SERVER for an RPC, INTERNAL for its routing, one CLIENT for every attempt, as siblings.

    modelrouter.v1.ModelRouterService/StreamChat   SERVER
    └─ route chat-default                          INTERNAL
       ├─ chat gpt-4o-mini                         CLIENT, error.type=unavailable
       └─ chat gemini-2.5-flash                    CLIENT

Nothing is recorded per token. Refuses to know where spans go.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Token
from random import random

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

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
from router_server.core.types import ChatRequest
from router_server.telemetry import attributes, content, semconv
from router_server.telemetry.unsampled import (
    UnsampledCall,
    UnsampledRpc,
    current_unsampled,
    new_trace_id,
    unsampled_headers,
)

_W3C = TraceContextTextMapPropagator()
_NO_CONTEXT = Context()
_TRACEPARENT = "traceparent"


def caller_context(metadata: Mapping[str, str]) -> Context:
    """Return the context that the caller sent as ``traceparent`` and ``tracestate``; empty if none or bad."""
    if _TRACEPARENT not in metadata:
        return _NO_CONTEXT
    return _W3C.extract(metadata, _NO_CONTEXT)


def context_headers(context: Context) -> dict[str, str]:
    """Return the headers that carry ``context`` on; none where it has no valid span."""
    headers: dict[str, str] = {}
    _W3C.inject(headers, context)
    return headers


def leave(token: Token[Context]) -> None:
    """Undo the attachment of a context, where it was made: elsewhere there is nothing to undo.

    A cancelled stream may be closed by another task, whose context never was ours.
    """
    try:
        token.var.reset(token)
    except ValueError:
        return


class Tracing:
    """Sees RPCs and calls, and makes spans of them.

    Args:
        tracer: makes the spans; it keeps every trace that begins here.
        ratio: 0 to 1, the part of traces to begin where the caller has none.
        record_content: whether the contents of messages go into the spans of attempts.
    """

    def __init__(self, tracer: Tracer, ratio: float, *, record_content: bool = False) -> None:
        self._tracer = tracer
        self._ratio = ratio
        self._record_content = record_content

    def rpc(self, start: RpcStart) -> RpcObservation:
        """Begin a SERVER span and make it the current one, if the trace is kept."""
        parent = caller_context(start.metadata)
        if not parent and not self._keeps():
            return UnsampledRpc()
        span = self._tracer.start_span(start.method, parent, SpanKind.SERVER)
        if span.is_recording():
            span.set_attributes(attributes.of_rpc_start(start))
        return _Rpc(span, otel_context.attach(set_span_in_context(span)))

    def call(self, start: CallStart) -> CallObservation:
        """Begin an INTERNAL span under the current one, if the trace is kept."""
        unsampled = current_unsampled()
        if unsampled is not None:
            return UnsampledCall(unsampled_headers(unsampled.trace_id))
        if get_current_span() is INVALID_SPAN and not self._keeps():
            return UnsampledCall(unsampled_headers(new_trace_id()))
        span = self._tracer.start_span(
            f"route {start.route}", None, SpanKind.INTERNAL, attributes=attributes.of_call_start(start)
        )
        return _Call(self._tracer, span, record_content=self._record_content)

    def breaker_changed(self, target: str, provider: str, before: str, after: str) -> None:
        """A breaker belongs to no single call: metrics and log tell of it."""

    def _keeps(self) -> bool:
        """Decide on a new trace; asking the SDK would begin a span first."""
        return random() < self._ratio  # noqa: S311 - a sample, not a secret


class _Rpc:
    __slots__ = ("_span", "_token")

    def __init__(self, span: Span, token: Token[Context]) -> None:
        self._span = span
        self._token = token

    @property
    def trace_id(self) -> str:
        return format_trace_id(self._span.get_span_context().trace_id)

    def ended(self, record: RpcRecord) -> None:
        if self._span.is_recording():
            self._span.set_attributes(attributes.of_rpc_record(record))
            if record.code in semconv.RPC_SERVER_ERRORS:
                self._span.set_status(Status(StatusCode.ERROR, record.reason or record.code))
        self._span.end()
        leave(self._token)


class _Call:
    __slots__ = ("_context", "_record_content", "_span", "_tracer")

    def __init__(self, tracer: Tracer, span: Span, *, record_content: bool) -> None:
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span, _NO_CONTEXT)
        self._record_content = record_content

    def attempt(self, start: AttemptStart) -> AttemptObservation:
        span = self._tracer.start_span(
            f"{semconv.operation_name(start.operation)} {start.model}",
            self._context,
            SpanKind.CLIENT,
            attributes=attributes.of_attempt_start(start),
        )
        if self._record_content and isinstance(start.request, ChatRequest):
            span.set_attribute(semconv.GEN_AI_INPUT_MESSAGES, content.messages_json(start.request.messages))
        return _Attempt(span, record_content=self._record_content)

    def failed_over(self, failover: Failover) -> None:
        """The sibling spans of the attempts show it already."""

    def ended(self, record: CallRecord) -> None:
        if self._span.is_recording():
            self._span.set_attributes(attributes.of_call_record(record))
            if record.error is not None:
                self._span.set_status(Status(StatusCode.ERROR, record.error.value))
        self._span.end()


class _Attempt:
    __slots__ = ("_record_content", "_span", "headers")

    def __init__(self, span: Span, *, record_content: bool) -> None:
        self._span = span
        self._record_content = record_content
        self.headers: Mapping[str, str] = context_headers(set_span_in_context(span, _NO_CONTEXT))

    def ended(self, record: AttemptRecord) -> None:
        if self._span.is_recording():
            self._describe(record)
        self._span.end()

    def _describe(self, record: AttemptRecord) -> None:
        self._span.set_attributes(attributes.of_attempt_record(record))
        if self._record_content and record.answer is not None:
            self._span.set_attribute(semconv.GEN_AI_OUTPUT_MESSAGES, content.messages_json([record.answer]))
        if record.outcome is Outcome.OK:
            return
        self._span.set_attribute(semconv.ERROR_TYPE, record.outcome.value)
        if record.outcome is not Outcome.CANCELLED:
            self._span.set_status(Status(StatusCode.ERROR, record.error_reason or record.outcome.value))
