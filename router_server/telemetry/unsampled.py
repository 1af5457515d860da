"""Traces of which nothing is kept: most of them, where only a part is sampled.

They have ids, for the caller and for log lines, but no spans: making three of OpenTelemetry's SDK that
record nothing takes 45 µs of a call, these take 3. Refuses to decide which traces are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from random import getrandbits
from typing import Final

from opentelemetry import trace

from router_server.core.observer import (
    AttemptObservation,
    AttemptRecord,
    AttemptStart,
    CallRecord,
    Failover,
    RpcRecord,
)

_TRACE_BYTES: Final = 16
_SPAN_BYTES: Final = 8

_current: ContextVar[UnsampledRpc | None] = ContextVar("unsampled", default=None)


def current_unsampled() -> UnsampledRpc | None:
    """Return the RPC that is being answered here, if its trace is not kept."""
    return _current.get()


def current_trace_id() -> str:
    """Return the id of the trace that is current here, kept or not; empty where there is none."""
    rpc = _current.get()
    if rpc is not None:
        return rpc.trace_id
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def new_trace_id() -> str:
    """Return a new id, 32 hex digits."""
    return _new_id(_TRACE_BYTES)


def unsampled_headers(trace_id: str) -> Mapping[str, str]:
    """Return the headers that tell an upstream of the trace, and that it is not kept."""
    return {"traceparent": f"00-{trace_id}-{_new_id(_SPAN_BYTES)}-00"}


def _new_id(size: int) -> str:
    # Never all zeros, which says that there is none.
    return (getrandbits(8 * size) or 1).to_bytes(size).hex()  # half of what formatting a number takes


class UnsampledRpc:
    """One RPC, and the current one from now until it ends."""

    __slots__ = ("_token", "trace_id")

    def __init__(self) -> None:
        self.trace_id = new_trace_id()
        self._token = _current.set(self)

    def ended(self, record: RpcRecord) -> None:
        """The RPC is over."""
        del record
        try:
            _current.reset(self._token)
        except ValueError:
            # A cancelled stream may be closed by another task, where this RPC never was the current one.
            return


class UnsampledCall:
    """A call and all of its attempts, which carry the same headers."""

    __slots__ = ("headers",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers

    def attempt(self, start: AttemptStart) -> AttemptObservation:
        """Nothing is kept of an attempt."""
        del start
        return self

    def failed_over(self, failover: Failover) -> None:
        """Nothing is kept of it."""

    def ended(self, record: CallRecord | AttemptRecord) -> None:
        """Nothing is kept of it."""
