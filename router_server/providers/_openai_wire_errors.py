"""What OpenAI and the servers that imitate it say when they fail: codes, types, and some well-known wordings.

Reads an error body, or an error object inside a stream, into a class and a token of our own. Nothing of
its text goes further. Refuses to know HTTP beyond the status.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from router_server.core.errors import Outcome, UpstreamError
from router_server.providers._failure import NO_VERDICT, Verdict, status_outcome
from router_server.providers._json import UNREADABLE

_STATUS: Final = re.compile(r"[0-9]{3}")
"""A code that is the number of a status: of too many digits Python makes no int."""


class ErrorObject(msgspec.Struct, gc=False):
    """``{"message": …, "type": …, "code": …}``; codes are words at OpenAI, numbers elsewhere."""

    message: str | None = None
    type: str | None = None
    code: str | int | float | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """Code and type, as far as they are words."""
        return tuple(word for word in (self.code, self.type) if isinstance(word, str))

    @property
    def status(self) -> int | None:
        """The code, where it is the number of an HTTP error."""
        code = self.code
        if isinstance(code, str):
            code = int(code) if _STATUS.fullmatch(code) else None
        return int(code) if code is not None and 400 <= code <= 599 else None  # noqa: PLR2004 - HTTP's errors


class _Body(msgspec.Struct, gc=False):
    error: ErrorObject | str | None = None
    message: str | None = None
    type: str | None = None
    code: str | int | float | None = None

    def found(self) -> ErrorObject | None:
        if isinstance(self.error, ErrorObject):
            return self.error
        message = self.error or self.message
        return ErrorObject(message, self.type, self.code) if message else None


_BODY: Final = msgspec.json.Decoder(_Body)
_BODIES: Final = msgspec.json.Decoder(list[_Body])
_OBJECT: Final = msgspec.json.Decoder(ErrorObject | str)

_QUOTA: Final = Verdict(Outcome.AUTH, "insufficient_quota")
_CONTEXT: Final = Verdict(Outcome.CONTEXT_LENGTH, "context_length")
_FILTER: Final = Verdict(Outcome.CONTENT_FILTER, "content_filter")
_MODEL: Final = Verdict(Outcome.MODEL_MISSING, "model_not_found")
_KEY: Final = Verdict(Outcome.AUTH, "invalid_api_key")

_BY_WORD: Final[Mapping[str, Verdict]] = {
    "insufficient_quota": _QUOTA,
    "billing_hard_limit_reached": _QUOTA,
    "billing_not_active": _QUOTA,
    "context_length_exceeded": _CONTEXT,
    "exceed_context_size_error": _CONTEXT,  # llama.cpp
    "content_filter": _FILTER,  # Azure
    "content_policy_violation": _FILTER,
    "moderation_blocked": _FILTER,
    "invalid_prompt": _FILTER,  # reasoning models' word for a flagged prompt
    "model_not_found": _MODEL,
    "invalid_api_key": _KEY,
}
"""Words that say more than the status they come with."""

_REQUEST_STATUSES: Final = frozenset({400, 413, 422})
"""Where a wording may tell that the prompt is too long: elsewhere it would be about something else."""

_TOO_LONG: Final = re.compile(
    r"maximum context length|context (?:window|size|length)|maximum (?:model|input) length"
    r"|max_model_len|prompt is too long|input is too long|too many (?:input )?tokens",
    re.IGNORECASE,
)

_IN_STREAM: Final[Mapping[str, Outcome]] = {
    "rate_limit_exceeded": Outcome.RATE_LIMITED,
    "rate_limit_error": Outcome.RATE_LIMITED,
    "server_error": Outcome.UNAVAILABLE,
    "internal_error": Outcome.UNAVAILABLE,
    "internal_server_error": Outcome.UNAVAILABLE,
    "internalservererror": Outcome.UNAVAILABLE,  # vLLM, with its capitals taken away
    "service_unavailable": Outcome.UNAVAILABLE,
    "overloaded_error": Outcome.UNAVAILABLE,
    "engine_overloaded": Outcome.UNAVAILABLE,
    "timeout": Outcome.UNAVAILABLE,
    "authentication_error": Outcome.AUTH,
    "permission_error": Outcome.AUTH,
    "invalid_request_error": Outcome.INVALID_REQUEST,
    "badrequesterror": Outcome.INVALID_REQUEST,  # vLLM
}
"""What words mean where no status came with them."""


def read_error(status: int, body: bytes) -> Verdict:
    """Read the body that came with ``status``; a body that says nothing leaves it to the status."""
    error = _error_of(body)
    return NO_VERDICT if error is None else _verdict(error, status)


def stream_failure(raw: bytes) -> UpstreamError:
    """Return the failure that an ``error`` value inside a successful answer means.

    Its own code decides; where that says nothing, the answer is MALFORMED.
    """
    try:
        decoded = _OBJECT.decode(raw)
    except UNREADABLE:
        return UpstreamError(Outcome.MALFORMED, "error_in_answer")
    error = ErrorObject(decoded) if isinstance(decoded, str) else decoded
    status = error.status
    verdict = _verdict(error, status)
    outcome = verdict.outcome or _outcome_without_status(error)
    if outcome is None:
        outcome = Outcome.MALFORMED if status is None else status_outcome(status)
    return UpstreamError(outcome, verdict.reason or "error_in_answer", status=status)


def _error_of(body: bytes) -> ErrorObject | None:
    try:
        if body.lstrip().startswith(b"["):  # Gemini's OpenAI-compatible door
            bodies = _BODIES.decode(body)
            return bodies[0].found() if bodies else None
        return _BODY.decode(body).found()
    except UNREADABLE:
        return None


def _verdict(error: ErrorObject, status: int | None) -> Verdict:
    for word in error.words:
        verdict = _BY_WORD.get(word.lower())
        if verdict is not None:
            return verdict
    if status in _REQUEST_STATUSES and error.message and _TOO_LONG.search(error.message):
        return _CONTEXT
    return NO_VERDICT


def _outcome_without_status(error: ErrorObject) -> Outcome | None:
    return next((_IN_STREAM[word.lower()] for word in error.words if word.lower() in _IN_STREAM), None)
