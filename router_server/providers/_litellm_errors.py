"""What an exception of litellm means: by the upstream's own reply where there was one, else by its cause.

litellm maps what providers say to classes of its own, mostly by looking for words; the reply itself, which it
keeps, is read by the router's rules first. Imports only what comes with litellm. Refuses to repeat any text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import aiohttp
import httpx
import msgspec
import openai

from router_server.core.errors import Outcome, Phase, UpstreamError
from router_server.providers._failure import (
    NO_VERDICT,
    Verdict,
    read_retry_after,
    status_failure,
    status_outcome,
    transport_failure,
)
from router_server.providers._openai_wire_errors import read_error, stream_failure

_DEEPEST: Final = 16
"""Exceptions looked at: each knows the one that it was made of."""

_WORDS: Final = {
    "ContextWindowExceededError": Verdict(Outcome.CONTEXT_LENGTH, "context_length"),
    "ContentPolicyViolationError": Verdict(Outcome.CONTENT_FILTER, "content_filter"),
}
"""Classes by which litellm says more than a status: it knows the wordings of many providers."""

_REFUSED_REQUEST: Final = frozenset({400, 413, 422})
"""Statuses with which those classes are believed."""

_WITHOUT_REPLY: Final = {
    "AuthenticationError": (Outcome.AUTH, "no_credentials"),
    "PermissionDeniedError": (Outcome.AUTH, "no_credentials"),
    "NotFoundError": (Outcome.MODEL_MISSING, "model_not_found"),
    "RateLimitError": (Outcome.RATE_LIMITED, "rate_limited"),
    "ServiceUnavailableError": (Outcome.UNAVAILABLE, "unavailable"),
    "UnsupportedParamsError": (Outcome.INVALID_REQUEST, "parameter_unsupported"),
    "BadRequestError": (Outcome.INVALID_REQUEST, "refused_by_litellm"),
    "UnprocessableEntityError": (Outcome.INVALID_REQUEST, "refused_by_litellm"),
}
"""litellm's own refusals, before anything was sent."""

_UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, IndexError)
"""What an answer that is not as it should be leads to in the code that reads it; also pydantic's errors."""


def failure_of(error: Exception, retry_after_cap: float) -> UpstreamError:
    """Return the failure; raise it ``from None``: the exception holds the request with its headers."""
    chain = tuple(_chain(error))
    reply = _reply(chain)
    if reply is not None:
        return _refusal(chain, reply, retry_after_cap)
    return _broken(chain) or _said_in_stream(chain) or _without_reply(chain)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_DEEPEST):
        if error is None:
            return
        yield error
        error = getattr(error, "original_exception", None) or error.__cause__ or error.__context__


def _reply(chain: tuple[BaseException, ...]) -> httpx.Response | None:
    """Return what the upstream answered, from the exception that is nearest to the wire."""
    for error in reversed(chain):
        response = getattr(error, "response", None)
        if isinstance(response, httpx.Response) and (response.headers or _body(response)):
            return response
    return None


def _refusal(chain: tuple[BaseException, ...], reply: httpx.Response, cap: float) -> UpstreamError:
    status = reply.status_code
    if 200 <= status < 300:  # noqa: PLR2004 - the 2xx of HTTP
        return _said_in_stream(chain) or UpstreamError(Outcome.MALFORMED, "unreadable_answer", status=status)
    verdict = read_error(status, _longest_body(chain, reply))
    if verdict.outcome is None and status in _REFUSED_REQUEST:
        verdict = next((_WORDS[name] for name in map(_name, chain) if name in _WORDS), NO_VERDICT)
    return status_failure(status, verdict, retry_after=read_retry_after(reply.headers, cap))


def _longest_body(chain: tuple[BaseException, ...], reply: httpx.Response) -> bytes:
    """Return the reply's body; of a stream only litellm's copy was read."""
    responses = [getattr(error, "response", None) for error in chain]
    copies = [_body(response) for response in responses if isinstance(response, httpx.Response)]
    return max([_body(reply), *copies], key=len)


def _body(response: httpx.Response) -> bytes:
    try:
        return response.content
    except httpx.ResponseNotRead:
        return b""


def _broken(chain: tuple[BaseException, ...]) -> UpstreamError | None:
    """Return what it means that there was no connection, or that it ended."""
    for error in reversed(chain):
        if isinstance(error, httpx.TimeoutException):
            return UpstreamError(Outcome.TIMEOUT, "connect_timeout", phase=Phase.CONNECT)
        if isinstance(error, aiohttp.ClientError):
            return transport_failure(error)
        if isinstance(error, httpx.TransportError):
            return UpstreamError(Outcome.UNAVAILABLE, "connection_failed")
        if isinstance(error, StopAsyncIteration):
            return UpstreamError(Outcome.MALFORMED, "no_finish_reason")
    return None


def _said_in_stream(chain: tuple[BaseException, ...]) -> UpstreamError | None:
    """Return what an error object inside an answer means, as far as litellm has left it whole."""
    for error in reversed(chain):
        body = getattr(error, "body", None)
        if isinstance(body, dict):
            return stream_failure(msgspec.json.encode({k: v for k, v in body.items() if _is_plain(v)}))
        status = getattr(error, "status_code", None)
        if isinstance(status, str):
            return stream_failure(json.dumps({"code": status}).encode())
    return None


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _without_reply(chain: tuple[BaseException, ...]) -> UpstreamError:
    if any(type(error) is openai.OpenAIError for error in chain):  # what OpenAI's package says of no key
        return UpstreamError(Outcome.AUTH, "no_credentials")
    known = [_WITHOUT_REPLY[name] for name in map(_name, chain) if name in _WITHOUT_REPLY]
    if known:
        return UpstreamError(*known[0])
    if any(isinstance(error, _UNREADABLE) for error in chain):
        return UpstreamError(Outcome.MALFORMED, "unreadable_answer")
    # A provider's own class has the status that it read, litellm's the one that it made of it.
    statuses = [getattr(error, "status_code", None) for error in reversed(chain)]
    status = next((status for status in statuses if isinstance(status, int)), None)
    if status is None or status == 500:  # noqa: PLR2004 - what litellm says where it knows nothing
        return UpstreamError(Outcome.MALFORMED, "unreadable_answer")
    return UpstreamError(status_outcome(status), f"http_{status}", status=status)


def _name(error: BaseException) -> str:
    return type(error).__name__
