"""What Google's errors mean: ``{"error": {"code", "status", "message", "details"}}``, alone or in an array.

Reads an error body, or an error object inside a successful answer, into a class and a token of our own.
Nothing of its text goes further.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from router_server.core.errors import Outcome, UpstreamError
from router_server.providers._failure import NO_VERDICT, Verdict, capped, status_failure
from router_server.providers._json import UNREADABLE


class GoogleError(msgspec.Struct, gc=False):
    """The error object; ``details`` are google.rpc messages as JSON, told apart by ``@type``."""

    code: int | None = None
    message: str | None = None
    status: str | None = None
    details: list[dict[str, Any]] | None = None


class _Body(msgspec.Struct, gc=False):
    error: GoogleError | None = None


_BODY: Final = msgspec.json.Decoder(_Body)
_BODIES: Final = msgspec.json.Decoder(list[_Body])
_ERROR: Final = msgspec.json.Decoder(GoogleError)

_REQUEST_STATUSES: Final = frozenset({400, 413})
"""Where a wording may tell that the prompt is too long: at 429 the same words are about a quota."""

_TOO_LONG: Final = re.compile(
    r"exceeds the maximum number of tokens|maximum context length|context (?:window|length|size)",
    re.IGNORECASE,
)

_NOT_FOR_US: Final = re.compile(r"location is not supported|enable billing", re.IGNORECASE)
"""A 400 with status FAILED_PRECONDITION that is about our account, not about the request."""

_KEY_REASONS: Final = "API_KEY_"
"""How the ErrorInfo reasons of a bad key begin; Google sends API_KEY_INVALID with status 400."""

_RETRY_DELAY: Final = re.compile(r"(\d+(?:\.\d+)?)s")


def read_error(status: int, body: bytes) -> Verdict:
    """Read the body that came with ``status``; a body that says nothing leaves it to the status."""
    error = _error_of(body)
    return NO_VERDICT if error is None else _verdict(error, status)


def answer_failure(raw: msgspec.Raw, retry_after_cap: float) -> UpstreamError:
    """Return the failure that an ``error`` value inside a successful answer means: its own code decides."""
    try:
        error = _ERROR.decode(raw)
    except UNREADABLE:
        return UpstreamError(Outcome.MALFORMED, "error_in_answer")
    status = error.code
    if status is None or not 400 <= status <= 599:  # noqa: PLR2004 - the errors of HTTP
        return UpstreamError(Outcome.MALFORMED, "error_in_answer")
    verdict = _verdict(error, status)
    return status_failure(status, verdict, retry_after=capped(verdict.retry_after, retry_after_cap))


def _error_of(body: bytes) -> GoogleError | None:
    try:
        if body.lstrip().startswith(b"["):
            bodies = _BODIES.decode(body)
            return bodies[0].error if bodies else None
        return _BODY.decode(body).error
    except UNREADABLE:
        return None


def _verdict(error: GoogleError, status: int) -> Verdict:
    details = error.details or ()
    if any(str(detail.get("reason", "")).startswith(_KEY_REASONS) for detail in details):
        return Verdict(Outcome.AUTH, "api_key_refused")
    message = error.message or ""
    if status in _REQUEST_STATUSES and _TOO_LONG.search(message):
        return Verdict(Outcome.CONTEXT_LENGTH, "context_length")
    if error.status == "FAILED_PRECONDITION" and _NOT_FOR_US.search(message):
        return Verdict(Outcome.AUTH, "location_unsupported")
    delays = (_retry_delay(detail) for detail in details)
    return Verdict(retry_after=next((delay for delay in delays if delay is not None), None))


def _retry_delay(detail: Mapping[str, Any]) -> float | None:
    """Return the seconds of a RetryInfo, a protobuf duration such as ``45.837906927s``."""
    found = _RETRY_DELAY.fullmatch(str(detail.get("retryDelay", "")))
    return float(found[1]) if found else None
