"""One log line per RPC, and one per change of a breaker.

Names, counts and times; never a word of what was said. Refuses to know how lines are written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
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
    fields: dict[str, Any] = {
        "request_id": record.start.request_id,
        "trace_id": record.trace_id,
        "method": record.start.method,
        "code": record.code,
        "reason": record.reason,
        "duration_ms": _milliseconds(record.duration),
        "peer": record.start.peer,
        "principal": record.principal,
        **(_of_call(record.call) if record.call else {}),
    }
    # Nothing is said of what is empty; but 0 is a number.
    return {name: value for name, value in fields.items() if value or value == 0}


def _of_call(call: CallRecord) -> Mapping[str, Any]:
    last = call.attempts[-1].start if call.attempts else None
    return {
        "route": call.start.route,
        "arm": call.start.arm,
        "reused": call.reused,
        "target": call.target or (last.target if last else ""),
        "provider": call.provider or (last.provider if last else ""),
        "model": call.model or (last.model if last else ""),
        "attempts": len(call.attempts),
        "trail": [_stop(attempt) for attempt in call.attempts],
        "ttft_ms": _milliseconds(call.time_to_first_token),
        "input_tokens": call.usage.input_tokens if call.usage else None,
        "output_tokens": call.usage.output_tokens if call.usage else None,
        "cost_nano_usd": call.cost_nano_usd,
    }


def _stop(attempt: AttemptRecord) -> str:
    why = f"/{attempt.error_reason}" if attempt.error_reason else ""
    where = f"@{attempt.start.endpoint}" if attempt.start.endpoint else ""
    return f"{attempt.start.target}{where}:{attempt.outcome.value}{why}"


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


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
