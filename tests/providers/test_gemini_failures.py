from typing import Any

import pytest

from router_server.core.errors import Outcome
from router_server.core.provider import Provider
from tests.providers.gemini_upstream import failure_of
from tests.upstream import (
    Upstream,
    json_reply,
    reply,
)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("status", "error", "outcome", "reason"),
    [
        (
            400,
            {
                "message": "API key not valid.",
                "details": [{"reason": "API_KEY_INVALID", "domain": "googleapis.com"}],
            },
            Outcome.AUTH,
            "api_key_refused",
        ),
        (
            400,
            {"message": "The input token count (9) exceeds the maximum number of tokens allowed (8)."},
            Outcome.CONTEXT_LENGTH,
            "context_length",
        ),
        (
            400,
            {"status": "FAILED_PRECONDITION", "message": "User location is not supported for the API use."},
            Outcome.AUTH,
            "location_unsupported",
        ),
        (
            400,
            {"status": "FAILED_PRECONDITION", "message": "The file is not ACTIVE."},
            Outcome.INVALID_REQUEST,
            "",
        ),
        (400, {"status": "INVALID_ARGUMENT", "message": "Bad."}, Outcome.INVALID_REQUEST, ""),
        (401, {}, Outcome.AUTH, ""),
        (403, {"status": "PERMISSION_DENIED"}, Outcome.AUTH, ""),
        (404, {"status": "NOT_FOUND"}, Outcome.MODEL_MISSING, ""),
        (
            429,
            {"message": "Quota: exceeds the maximum number of tokens per minute"},
            Outcome.RATE_LIMITED,
            "",
        ),
        (500, {"status": "INTERNAL"}, Outcome.UNAVAILABLE, ""),
        (503, {"status": "UNAVAILABLE"}, Outcome.UNAVAILABLE, ""),
    ],
)
async def test_what_googles_errors_mean(
    upstream: Upstream,
    gemini: Provider,
    status: int,
    error: Any,
    outcome: Outcome,
    reason: str,
    *,
    wrapped: bool,
) -> None:
    body = {"error": {"code": status, **error}}
    upstream.then(json_reply([body] if wrapped else body, status))

    found = await failure_of(gemini)

    assert (found.outcome, found.status, found.reason) == (outcome, status, reason or f"http_{status}")


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"[3]", b'{"error": "text"}', b'{"error": {"code": "\xff"}}']
)
async def test_an_error_that_says_nothing_is_left_to_its_status(
    upstream: Upstream, gemini: Provider, body: bytes
) -> None:
    upstream.then(reply(body, 503))

    assert (await failure_of(gemini)).reason == "http_503"


@pytest.mark.parametrize(
    ("delay", "headers", "wait"),
    [
        ("7s", {}, 7.0),
        ("45.837906927s", {}, 45.837906927),
        ("3600s", {}, 60.0),
        ("soon", {"Retry-After": "3"}, 3.0),
        ("2s", {"Retry-After": "30"}, 2.0),
    ],
)
async def test_the_body_says_how_long_to_wait(
    upstream: Upstream, gemini: Provider, delay: str, headers: dict[str, str], wait: float
) -> None:
    details = [
        {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
    ]
    error = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}}
    upstream.then(json_reply(error, 429, headers))

    found = await failure_of(gemini)

    assert found.outcome is Outcome.RATE_LIMITED
    assert found.retry_after == pytest.approx(wait)
