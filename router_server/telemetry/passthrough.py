"""Trace context where no spans are collected: the caller's goes through unchanged.

An RPC without one still gets a trace id, for its log line and for the caller; upstreams are not told of
it, since a trace id that nobody collects would only switch off their own sampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Token

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

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
from router_server.telemetry.tracing import caller_context, context_headers, leave

_IDS = RandomIdGenerator()


class Passthrough:
    """Sees RPCs and calls, gives them trace ids, and records nothing."""

    def rpc(self, start: RpcStart) -> RpcObservation:
        """Make the caller's context, or a new one, the current one."""
        context = caller_context(start.metadata)
        if not trace.get_current_span(context).get_span_context().is_valid:
            context = trace.set_span_in_context(trace.NonRecordingSpan(_new_context()), context)
        return _Rpc(context, otel_context.attach(context))

    def call(self, start: CallStart) -> CallObservation:
        """Remember which headers the attempts of this call carry."""
        del start
        context = otel_context.get_current()
        remote = trace.get_current_span(context).get_span_context().is_remote
        return _Call(context_headers(context) if remote else {})

    def breaker_changed(self, target: str, provider: str, before: str, after: str) -> None:
        """Nothing to pass on."""


def _new_context() -> trace.SpanContext:
    return trace.SpanContext(_IDS.generate_trace_id(), _IDS.generate_span_id(), is_remote=False)


class _Rpc:
    __slots__ = ("_token", "trace_id")

    def __init__(self, context: Context, token: Token[Context]) -> None:
        self._token = token
        self.trace_id = trace.format_trace_id(trace.get_current_span(context).get_span_context().trace_id)

    def ended(self, record: RpcRecord) -> None:
        del record
        leave(self._token)


class _Call:
    """A call whose attempts all carry the same headers."""

    __slots__ = ("headers",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers

    def attempt(self, start: AttemptStart) -> AttemptObservation:
        del start
        return _Attempt(self.headers)

    def failed_over(self, failover: Failover) -> None:
        """Nothing to pass on."""

    def ended(self, record: CallRecord) -> None:
        """Nothing to pass on."""


class _Attempt:
    __slots__ = ("headers",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers

    def ended(self, record: AttemptRecord) -> None:
        """Nothing to pass on."""
