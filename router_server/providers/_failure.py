"""How a failed HTTP exchange becomes an `UpstreamError`: status, transport error, Retry-After.

Nothing an upstream wrote goes into an error: not its body, not a header, not a URL that may hold a key.
Refuses to know any provider's error body; the provider reads its own and returns a `Verdict`.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp

from router_server.core.errors import Outcome, Phase, UpstreamError


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a provider reads in its own error body.

    Attributes:
        outcome: the class, where the body says more than the status; None leaves it to the status.
        reason: our own token for it, never upstream text; empty leaves it to the status.
        retry_after: seconds, where the body names them.
    """

    outcome: Outcome | None = None
    reason: str = ""
    retry_after: float | None = None


ErrorReader = Callable[[int, bytes], Verdict]
"""Reads an error body (at most `MAX_ERROR_BYTES` of it, perhaps cut short) that came with a status."""

NO_VERDICT: Final = Verdict()

_STATUS: Final[Mapping[int, Outcome]] = {
    401: Outcome.AUTH,
    402: Outcome.AUTH,
    403: Outcome.AUTH,
    404: Outcome.MODEL_MISSING,
    408: Outcome.UNAVAILABLE,
    425: Outcome.UNAVAILABLE,
    429: Outcome.RATE_LIMITED,
}


def status_outcome(status: int) -> Outcome:
    """Return the class of an HTTP status that is not a success."""
    named = _STATUS.get(status)
    if named is not None:
        return named
    if 400 <= status < 500:  # noqa: PLR2004 - the 4xx of HTTP
        return Outcome.INVALID_REQUEST
    if status >= 500:  # noqa: PLR2004 - the 5xx of HTTP, and what is beyond them
        return Outcome.UNAVAILABLE
    return Outcome.MALFORMED


def status_failure(
    status: int, verdict: Verdict = NO_VERDICT, *, retry_after: float | None = None
) -> UpstreamError:
    """Return the failure that an HTTP status means, in the light of what its body said."""
    return UpstreamError(
        verdict.outcome or status_outcome(status),
        verdict.reason or f"http_{status}",
        status=status,
        retry_after=retry_after,
    )


def transport_failure(error: Exception) -> UpstreamError:
    """Return the failure that an exception of aiohttp means; raise it ``from None``.

    The original holds the request with its headers, so it must not be chained.
    """
    if isinstance(error, TimeoutError):
        return UpstreamError(Outcome.TIMEOUT, "connect_timeout", phase=Phase.CONNECT)
    if isinstance(error, aiohttp.ClientPayloadError):
        return _payload_failure(error)
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.http_exceptions.HttpProcessingError):
        return UpstreamError(Outcome.MALFORMED, "bad_http")
    return UpstreamError(Outcome.UNAVAILABLE, _transport_reason(error))


def _payload_failure(error: aiohttp.ClientPayloadError) -> UpstreamError:
    if isinstance(error.__cause__, aiohttp.http_exceptions.ContentEncodingError):
        return UpstreamError(Outcome.MALFORMED, "bad_content_encoding")
    # aiohttp keeps the socket's own error only in its text.
    reset = ConnectionResetError.__name__ in str(error)
    return UpstreamError(Outcome.UNAVAILABLE, "reset" if reset else "closed")


def _transport_reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "dns"
    if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        return "tls"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "closed"
    return _socket_reason(error)


_ERRNO_REASON: Final[Mapping[int | None, str]] = {
    errno.ECONNREFUSED: "refused",
    errno.ENOENT: "refused",  # a unix socket that is not there
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ECONNABORTED: "reset",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ETIMEDOUT: "unreachable",
}


def _socket_reason(error: Exception) -> str:
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return "reset"
    if isinstance(error, OSError):
        return _ERRNO_REASON.get(error.errno, "connection_failed")
    return "closed"


def read_retry_after(
    headers: Mapping[str, str], cap: float, clock: Callable[[], float] = time.time
) -> float | None:
    """Return how long an upstream asks us to wait, in seconds from 0 to ``cap``; None where it does not.

    Reads ``retry-after-ms``, then ``Retry-After`` as seconds and as an HTTP date; nonsense is no wish.
    ``clock`` gives the seconds since the epoch.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return capped(milliseconds / 1000, cap)
    text = headers.get("Retry-After")
    seconds = _number(text)
    if seconds is None and text is not None:
        seconds = _seconds_until(text, clock)
    return capped(seconds, cap)


def capped(seconds: float | None, cap: float) -> float | None:
    """Return ``seconds`` within 0 to ``cap``, None for None."""
    return None if seconds is None else min(max(seconds, 0.0), cap)


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _seconds_until(text: str, clock: Callable[[], float]) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() - clock()
    except (ValueError, OverflowError, OSError):
        return None


def well_if_ok(status: int) -> bool:
    """Return True where ``status``, the answer to an active check, is a success.

    Raises:
        UpstreamError: it is not; the reason says which it is.
    """
    if 200 <= status < 300:  # noqa: PLR2004 - the 2xx of HTTP
        return True
    raise refused_check(status)


def refused_check(status: int) -> UpstreamError:
    """Return the error of an active check that was answered with ``status``."""
    return UpstreamError(Outcome.UNAVAILABLE, f"http_{status}", status=status)
