"""The google.rpc.Status of a failure, small enough for a trailer.

Clients drop trailers above 8 kB and then show another code than ours, so a status is cut, always in the
same order, until it fits 4 kB: texts first, then field violations from the last, then attempts from the
last. ``attempts`` in the metadata stays the true number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from router_server.core.errors import AttemptSummary, Reason, RouterError, Violation

DOMAIN: Final = "modelrouter"
MAX_STATUS_BYTES: Final = 4_096
MAX_VIOLATIONS: Final = 16
MAX_ATTEMPTS: Final = 8
_MAX_MESSAGE_BYTES = 512
"""It is sent twice: here, and percent-encoded, up to three times as long, in grpc-message."""
_MAX_TEXT_BYTES = 256
_MAX_NAME_BYTES = 64
_MAX_METADATA = 6
"""So that what is never cut, all at its longest, stays under the limit."""


def rich_status(error: RouterError, *, code: int, retry_after: float | None, request_id: str) -> Any:
    """Return the google.rpc.Status that says all of ``error`` that fits.

    Args:
        error: the failure.
        code: the number of the gRPC code.
        retry_after: seconds for RetryInfo, or None for no RetryInfo.
        request_id: for RequestInfo, which goes with INTERNAL.
    """
    violations = error.violations[:MAX_VIOLATIONS]
    attempts = error.attempts[:MAX_ATTEMPTS]
    while True:
        status = status_pb2.Status(code=code, message=_clip(error.message, _MAX_MESSAGE_BYTES))
        for detail in _details(error, violations, attempts, retry_after, request_id):
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        if status.ByteSize() <= MAX_STATUS_BYTES:
            return status
        if violations:
            violations = violations[:-1]
        else:
            attempts = attempts[:-1]


def _details(
    error: RouterError,
    violations: tuple[Violation, ...],
    attempts: tuple[AttemptSummary, ...],
    retry_after: float | None,
    request_id: str,
) -> Iterator[Any]:
    yield error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_metadata(error, attempts))
    if retry_after is not None:
        yield _retry_info(retry_after)
    match error.reason:
        case Reason.INVALID_REQUEST | Reason.CONTEXT_LENGTH_EXCEEDED if violations:
            yield _bad_request(violations)
        case Reason.MODEL_NOT_FOUND:
            yield _resource_info(error)
        case Reason.QUOTA_EXCEEDED | Reason.BUDGET_EXCEEDED:
            yield _quota_failure(error, violations)
        case Reason.INTERNAL:
            yield error_details_pb2.RequestInfo(request_id=request_id)
        case _:
            return


def _metadata(error: RouterError, attempts: tuple[AttemptSummary, ...]) -> dict[str, str]:
    told = {
        _clip(key, _MAX_NAME_BYTES): _clip(value, _MAX_TEXT_BYTES)
        for key, value in sorted(error.metadata.items())[:_MAX_METADATA]
    }
    if error.phase is not None:
        told["phase"] = error.phase
    if error.usage is not None:
        told["partial_input_tokens"] = str(error.usage.input_tokens)
        told["partial_output_tokens"] = str(error.usage.output_tokens)
    if error.attempts:
        told["attempts"] = str(len(error.attempts))
    for number, attempt in enumerate(attempts, start=1):
        told[f"attempt.{number}"] = _line(attempt)
    return told


def _line(attempt: AttemptSummary) -> str:
    """``<target> <provider> <outcome> <reason>``; a dash where one is not known, so that fields count."""
    words = (attempt.target, attempt.provider, attempt.outcome or "", attempt.error_reason)
    return " ".join("".join(_clip(word, _MAX_NAME_BYTES).split()) or "-" for word in words)


def _retry_info(seconds: float) -> Any:
    # In whole milliseconds, as the pushback says it: the two numbers are one.
    milliseconds = math.ceil(seconds * 1_000)
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromMilliseconds(milliseconds)
    return info


def _bad_request(violations: tuple[Violation, ...]) -> Any:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(
                field=_clip(v.field, _MAX_TEXT_BYTES), description=_clip(v.description, _MAX_TEXT_BYTES)
            )
            for v in violations
        ]
    )


def _resource_info(error: RouterError) -> Any:
    return error_details_pb2.ResourceInfo(
        resource_type="route",
        resource_name=_clip(error.metadata.get("model", ""), _MAX_TEXT_BYTES),
        description=_clip(error.message, _MAX_TEXT_BYTES),
    )


def _quota_failure(error: RouterError, violations: tuple[Violation, ...]) -> Any:
    """A violation's field is the subject: whose quota it is."""
    exceeded = violations or (Violation("caller", error.message),)
    return error_details_pb2.QuotaFailure(
        violations=[
            error_details_pb2.QuotaFailure.Violation(
                subject=_clip(v.field, _MAX_TEXT_BYTES), description=_clip(v.description, _MAX_TEXT_BYTES)
            )
            for v in exceeded
        ]
    )


def _clip(text: str, limit: int) -> str:
    data = text.encode(errors="replace")
    if len(data) <= limit:
        return data.decode()
    return data[: limit - 3].decode(errors="ignore") + "…"
