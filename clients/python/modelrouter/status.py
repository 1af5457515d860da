"""From a failed RPC to a typed exception: reads the rich status in the trailing metadata.

Refuses to trust it: details that cannot be parsed are left out, and the gRPC code alone decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from modelrouter.errors import (
    BY_CODE,
    BY_REASON,
    FailedAttempt,
    InvalidRequest,
    ModelRouterError,
    ServerUnreachable,
    StreamInterrupted,
    Violation,
)

DOMAIN: Final = "modelrouter"
_DETAILS_KEY: Final = "grpc-status-details-bin"
_REQUEST_ID_KEY: Final = "x-request-id"
_ATTEMPT_WORDS: Final = 4

_TOO_LARGE: Final = "larger than max"
"""gRPC's own words for a message beyond a limit; the router never sees such a request."""
_TOO_LARGE_ADVICE: Final = (
    "A message is larger than the server (max_receive_bytes, 16 MiB unless configured) or this client takes. "
    "Send less at once: fewer inputs, smaller attachments, a shorter prompt."
)

_Detail = TypeVar("_Detail", bound=Message)


class _Failed(Protocol):
    """What the errors of both gRPC clients, blocking and asyncio, have in common."""

    def code(self) -> grpc.StatusCode: ...

    def details(self) -> str | None: ...

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def from_rpc_error(error: grpc.RpcError, *, target: str, partial: str | None = None) -> ModelRouterError:
    """Return the exception that a failed RPC means.

    Args:
        error: what a stub raised.
        target: where the RPC went, for the message.
        partial: the text that had arrived, where a stream had begun; None where it had not.
    """
    failed = cast("_Failed", error)
    code = failed.code()
    trailers = dict(failed.trailing_metadata() or ())
    details = _details(trailers.get(_DETAILS_KEY))
    info = _first(details, error_details_pb2.ErrorInfo)
    ours = info is not None and info.domain == DOMAIN
    reason = str(info.reason) if info is not None and ours else ""
    metadata = dict(info.metadata) if info is not None and ours else {}
    said = failed.details() or ""
    too_large = not reason and code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in said
    kind = InvalidRequest if too_large else _kind(code, reason, begun=partial is not None)
    return kind(
        _TOO_LARGE_ADVICE if too_large else _message(kind, said, target),
        code=code,
        reason=reason,
        metadata=metadata,
        violations=tuple(_violations(details)),
        retry_after=_retry_after(details),
        request_id=_request_id(details, trailers),
        attempts=tuple(_attempts(metadata)),
        partial=partial or "",
    )


def _kind(code: grpc.StatusCode, reason: str, *, begun: bool) -> type[ModelRouterError]:
    by_code = BY_CODE.get(code, ModelRouterError)
    if reason:
        return BY_REASON.get(reason, by_code)
    if code is not grpc.StatusCode.UNAVAILABLE:
        return by_code
    # The router always gives a reason: without one it is gRPC itself that lost, or never had, a connection.
    return StreamInterrupted if begun else ServerUnreachable


def _message(kind: type[ModelRouterError], details: str, target: str) -> str:
    if kind is ServerUnreachable:
        # What gRPC says before its last error is the same for every cause.
        cause = details.rpartition("last error: ")[2].removeprefix("UNKNOWN: ")
        return f"no model router can be reached at {target}: {cause}"
    return details


def _details(raw: str | bytes | None) -> status_pb2.Status:
    status = status_pb2.Status()
    if not isinstance(raw, bytes):
        return status
    try:
        status.ParseFromString(raw)
    except DecodeError:
        return status_pb2.Status()
    return status


def _all(status: status_pb2.Status, kind: type[_Detail]) -> Iterator[_Detail]:
    for packed in status.details:
        if not packed.Is(kind.DESCRIPTOR):
            continue
        detail = kind()
        try:
            packed.Unpack(detail)
        except DecodeError:
            continue
        yield detail


def _first(status: status_pb2.Status, kind: type[_Detail]) -> _Detail | None:
    return next(_all(status, kind), None)


def _violations(status: status_pb2.Status) -> Iterator[Violation]:
    for bad_request in _all(status, error_details_pb2.BadRequest):
        for violation in bad_request.field_violations:
            yield Violation(violation.field, violation.description)
    for failure in _all(status, error_details_pb2.QuotaFailure):
        for violation in failure.violations:
            yield Violation(violation.subject, violation.description)


def _retry_after(status: status_pb2.Status) -> float | None:
    retry = _first(status, error_details_pb2.RetryInfo)
    if retry is None:
        return None
    return float(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)


def _request_id(status: status_pb2.Status, trailers: dict[str, Any]) -> str:
    info = _first(status, error_details_pb2.RequestInfo)
    return str(info.request_id if info else trailers.get(_REQUEST_ID_KEY, ""))


def _attempts(metadata: dict[str, str]) -> Iterator[FailedAttempt]:
    """Read ``attempt.1`` = ``target provider outcome reason``, a dash for what is not known, and so on."""
    number = 1
    while len(words := metadata.get(f"attempt.{number}", "").split()) == _ATTEMPT_WORDS:
        yield FailedAttempt(*("" if word == "-" else word for word in words))
        number += 1
