"""What a caller is told of a failure: `RouterError` to gRPC code, rich details and retry pushback.

The second table of the error semantics, in one place. The Python client reads the same conventions.
Refuses to know any text that is not in the `RouterError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import grpc

from router_server.core.errors import Reason, RouterError
from router_server.rpc.details import rich_status

_PUSHBACK_CAP: Final = 10.0
"""Seconds; a caller that would have to wait longer should go elsewhere."""

NEVER: Final = "-1"
"""The pushback that forbids a retry."""


class Pushback(Enum):
    """What ``grpc-retry-pushback-ms`` says."""

    ABSENT = auto()
    AS_RETRY_INFO = auto()
    """The same number as RetryInfo. Absent where the router knows none: the caller's own backoff rules."""
    NEVER = auto()


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    code: grpc.StatusCode
    pushback: Pushback = Pushback.ABSENT


ROWS: Final[Mapping[Reason, Row]] = {
    Reason.INVALID_REQUEST: Row(grpc.StatusCode.INVALID_ARGUMENT),
    Reason.MODEL_NOT_FOUND: Row(grpc.StatusCode.NOT_FOUND),
    Reason.CAPABILITY_UNSUPPORTED: Row(grpc.StatusCode.FAILED_PRECONDITION),
    Reason.CONTEXT_LENGTH_EXCEEDED: Row(grpc.StatusCode.INVALID_ARGUMENT),
    Reason.CONTENT_FILTERED: Row(grpc.StatusCode.FAILED_PRECONDITION),
    Reason.ROUTER_SATURATED: Row(grpc.StatusCode.RESOURCE_EXHAUSTED, Pushback.AS_RETRY_INFO),
    Reason.QUOTA_EXCEEDED: Row(grpc.StatusCode.RESOURCE_EXHAUSTED, Pushback.AS_RETRY_INFO),
    Reason.BUDGET_EXCEEDED: Row(grpc.StatusCode.RESOURCE_EXHAUSTED, Pushback.AS_RETRY_INFO),
    Reason.ALL_TARGETS_RATE_LIMITED: Row(grpc.StatusCode.RESOURCE_EXHAUSTED, Pushback.AS_RETRY_INFO),
    Reason.ALL_TARGETS_FAILED: Row(grpc.StatusCode.UNAVAILABLE, Pushback.AS_RETRY_INFO),
    Reason.STREAM_INTERRUPTED: Row(grpc.StatusCode.ABORTED),
    Reason.DEADLINE_EXCEEDED: Row(grpc.StatusCode.DEADLINE_EXCEEDED),
    Reason.UPSTREAM_AUTH_FAILED: Row(grpc.StatusCode.INTERNAL, Pushback.NEVER),
    Reason.UPSTREAM_MODEL_MISSING: Row(grpc.StatusCode.INTERNAL, Pushback.NEVER),
    Reason.UNAUTHENTICATED: Row(grpc.StatusCode.UNAUTHENTICATED),
    Reason.PERMISSION_DENIED: Row(grpc.StatusCode.PERMISSION_DENIED),
    Reason.INTERNAL: Row(grpc.StatusCode.INTERNAL),
}


@dataclass(frozen=True, slots=True)
class RpcStatus:
    """A status as it goes out."""

    code: grpc.StatusCode
    message: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


def status_of(error: RouterError, *, request_id: str, remaining: float | None) -> RpcStatus:
    """Return what the caller is told.

    Args:
        error: the failure.
        request_id: told with INTERNAL, so that a bug can be found in the log.
        remaining: seconds until the caller's deadline, or None where it set none.
    """
    row = ROWS[error.reason]
    told = rich_status(
        error,
        code=row.code.value[0],
        retry_after=error.retry_after if row.pushback is Pushback.AS_RETRY_INFO else None,
        request_id=request_id,
    )
    trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", told.SerializeToString())]
    pushback = _pushback(row.pushback, error.retry_after, remaining)
    if pushback is not None:
        trailers.append(("grpc-retry-pushback-ms", pushback))
    return RpcStatus(row.code, told.message, tuple(trailers))


def internal_error() -> RouterError:
    """Return what is told of a bug: nothing but that it was one."""
    return RouterError(
        Reason.INTERNAL,
        "the router failed on this call; its log has the cause under the request id in these details",
    )


def _pushback(rule: Pushback, retry_after: float | None, remaining: float | None) -> str | None:
    if rule is Pushback.NEVER:
        return NEVER
    if rule is Pushback.ABSENT or retry_after is None:
        return None
    if retry_after > _PUSHBACK_CAP or (remaining is not None and retry_after >= remaining):
        return NEVER
    return str(math.ceil(retry_after * 1_000))
