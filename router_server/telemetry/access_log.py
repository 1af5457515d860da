"""One log line per RPC, and one per change of a breaker.

Names, counts and times; never a word of what was said. Refuses to know how lines are written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from router_server.core.observer import (
    UNOBSERVED,
    AttemptRecord,
    CallObservation,
    CallRecord,
    CallStart,
    RpcObservation,
    RpcRecord,
    RpcStart,
)
from router_server.telemetry import semconv

_access = logging.getLogger("router_server.access")
_breaker = logging.getLogger("router_server.breaker")

FIELDS = (
    "request_id",
    "trace_id",
    "method",
    "code",
    "reason",
    "duration_ms",
    "peer",
    "principal",
    "principal_labels",
    "route",
    "arm",
    "reused",
    "target",
    "provider",
    "model",
    "attempts",
    "trail",
    "ttft_ms",
    "input_tokens",
    "output_tokens",
    "cost_nano_usd",
)
"""What an access line may say, in its order; what is not known is left out."""


Say = Callable[[logging.Logger, int, str, dict[str, Any]], None]


class AccessLog:
    """Sees RPCs, and logs one line when each is over: a warning where the fault was on this side.

    Args:
        say: as `Logs.say`.
    """

    def __init__(self, say: Say) -> None:
        self._rpcs = _Rpc(say)

    def rpc(self, start: RpcStart) -> RpcObservation:
        """Nothing is logged before the end."""
        del start
        return self._rpcs


class _Rpc:
    """All RPCs: nothing is kept of one."""

    __slots__ = ("_say", "trace_id")

    def __init__(self, say: Say) -> None:
        self._say = say
        self.trace_id = ""

    def ended(self, record: RpcRecord) -> None:
        level = logging.WARNING if record.code in semconv.RPC_SERVER_ERRORS else logging.INFO
        if _access.isEnabledFor(level):
            method = record.start.method.rpartition("/")[2]
            self._say(_access, level, f"{method} {record.code}", access_fields(record))


def access_fields(record: RpcRecord) -> dict[str, Any]:
    """Return what an access line says of an RPC: those of `FIELDS` that are known, in their order."""
    start = record.start
    fields: dict[str, Any] = {"request_id": start.request_id}
    if record.trace_id:
        fields["trace_id"] = record.trace_id
    fields["method"] = start.method
    fields["code"] = record.code
    if record.reason:
        fields["reason"] = record.reason
    fields["duration_ms"] = _milliseconds(record.duration)
    fields["peer"] = start.peer
    if record.principal:
        fields["principal"] = record.principal
    if record.principal_labels:
        fields["principal_labels"] = record.principal_labels
    if record.call is not None:
        _add_call(record.call, fields)
    return fields


def _add_call(call: CallRecord, fields: dict[str, Any]) -> None:
    fields["route"] = call.start.route
    if call.start.arm:
        fields["arm"] = call.start.arm
    if call.reused is not None:
        fields["reused"] = call.reused
    # Who answered, or was asked last.
    if who := call if call.target else (call.attempts[-1].start if call.attempts else None):
        fields["target"] = who.target
        fields["provider"] = who.provider
        fields["model"] = who.model
    fields["attempts"] = len(call.attempts)
    if call.attempts:
        fields["trail"] = [_stop(attempt) for attempt in call.attempts]
    if call.time_to_first_token is not None:
        fields["ttft_ms"] = _milliseconds(call.time_to_first_token)
    if call.usage is not None:
        fields["input_tokens"] = call.usage.input_tokens
        fields["output_tokens"] = call.usage.output_tokens
    if (cost := call.cost_nano_usd) is not None:
        fields["cost_nano_usd"] = cost


def _stop(attempt: AttemptRecord) -> str:
    start = attempt.start
    if not (attempt.error_reason or start.endpoint):
        # An enum's member in an f-string takes 2,500 instructions.
        return start.target + ":" + attempt.outcome
    why = f"/{attempt.error_reason}" if attempt.error_reason else ""
    where = f"@{start.endpoint}" if start.endpoint else ""
    return f"{start.target}{where}:{attempt.outcome}{why}"


def _milliseconds(seconds: float) -> float:
    # To a tenth. `round` takes 3,000 instructions for it, as it goes by the shortest decimal number.
    return int(seconds * 10_000 + 0.5) / 10


class BreakerLog:
    """Sees breakers, and logs their changes: an opening as a warning."""

    def call(self, start: CallStart) -> CallObservation:
        """Calls have a line of their own."""
        del start
        return UNOBSERVED

    def breaker_changed(self, target: str, provider: str, before: str, after: str) -> None:
        """Log the change."""
        level = logging.WARNING if after == "open" else logging.INFO
        fields = {"target": target, "provider": provider, "before": before, "after": after}
        _breaker.log(level, "The breaker of target %s is %s now.", target, after, extra={"fields": fields})
