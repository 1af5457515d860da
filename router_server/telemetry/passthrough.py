"""Trace context where no spans are collected: the caller's goes through unchanged.

An RPC without one still gets a trace id, for its log line and for the caller; upstreams are not told of
it, since a trace id that nobody collects would only switch off their own sampling.
"""

from __future__ import annotations

from contextvars import Token

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from router_server.core.observer import (
    UNOBSERVED,
    CallObservation,
    CallStart,
    RpcObservation,
    RpcRecord,
    RpcStart,
)
from router_server.telemetry.tracing import caller_context, context_headers, leave
from router_server.telemetry.unsampled import UnsampledCall, UnsampledRpc, current_unsampled


class Passthrough:
    """Sees RPCs and calls, gives them trace ids, and records nothing."""

    def rpc(self, start: RpcStart) -> RpcObservation:
        """Make the caller's context the current one, or give the RPC a trace id."""
        context = caller_context(start.metadata)
        return _Rpc(context, otel_context.attach(context)) if context else UnsampledRpc()

    def call(self, start: CallStart) -> CallObservation:
        """Remember which headers the attempts of this call carry."""
        del start
        if current_unsampled() is not None:
            return UNOBSERVED
        return UnsampledCall(context_headers(otel_context.get_current()))

    def breaker_changed(self, target: str, provider: str, before: str, after: str) -> None:
        """Nothing to pass on."""


class _Rpc:
    __slots__ = ("_token", "trace_id")

    def __init__(self, context: Context, token: Token[Context]) -> None:
        self._token = token
        self.trace_id = trace.format_trace_id(trace.get_current_span(context).get_span_context().trace_id)

    def ended(self, record: RpcRecord) -> None:
        del record
        leave(self._token)
