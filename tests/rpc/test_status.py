"""The table of what callers are told: every row over a real socket."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from router_server.core.errors import AttemptSummary, Outcome, Phase, Reason, RouterError, Violation
from router_server.core.results import ChatResult, Invocation
from router_server.core.types import ChatRequest, Usage
from router_server.rpc.status import ROWS, status_of
from tests.rpc.scripted import ScriptedRouter, all_of, chat_request, refused, serving, unpacked

Code = grpc.StatusCode
VIOLATIONS = (Violation("messages[1].role", "set it"), Violation("model", "name a route"))
ATTEMPTS = (
    AttemptSummary("gpt", "openai", Outcome.UNAVAILABLE, 0.5, error_reason="http_503"),
    AttemptSummary("flash", "gemini", Outcome.TIMEOUT),
)


@dataclass(frozen=True)
class Told:
    """One row: the error, and what must reach the caller."""

    error: RouterError
    code: grpc.StatusCode
    details: frozenset[str] = frozenset()
    pushback: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def told(error: RouterError, code: Code, *details: str, pushback: str | None = None, **metadata: str) -> Told:
    return Told(error, code, frozenset(details), pushback, metadata)


ERROR = RouterError
TABLE = [
    told(
        ERROR(Reason.INVALID_REQUEST, "2 fields are bad", violations=VIOLATIONS),
        Code.INVALID_ARGUMENT,
        "BadRequest",
    ),
    told(
        ERROR(Reason.MODEL_NOT_FOUND, "no route", metadata={"model": "nope"}),
        Code.NOT_FOUND,
        "ResourceInfo",
        model="nope",
    ),
    told(
        ERROR(Reason.CAPABILITY_UNSUPPORTED, "no images", metadata={"capability": "image_inline"}),
        Code.FAILED_PRECONDITION,
        capability="image_inline",
    ),
    told(
        ERROR(Reason.CONTEXT_LENGTH_EXCEEDED, "too long", violations=(Violation("messages", "shorten"),)),
        Code.INVALID_ARGUMENT,
        "BadRequest",
    ),
    told(ERROR(Reason.CONTENT_FILTERED, "filtered"), Code.FAILED_PRECONDITION),
    told(
        ERROR(Reason.ROUTER_SATURATED, "full", retry_after=0.25),
        Code.RESOURCE_EXHAUSTED,
        "RetryInfo",
        pushback="250",
    ),
    told(
        ERROR(Reason.QUOTA_EXCEEDED, "over", retry_after=2.0, violations=(Violation("team-a", "10/min"),)),
        Code.RESOURCE_EXHAUSTED,
        "RetryInfo",
        "QuotaFailure",
        pushback="2000",
    ),
    told(
        ERROR(Reason.BUDGET_EXCEEDED, "spent", retry_after=3_600.0),
        Code.RESOURCE_EXHAUSTED,
        "RetryInfo",
        "QuotaFailure",
        pushback="-1",
    ),
    told(
        ERROR(Reason.ALL_TARGETS_RATE_LIMITED, "slow down", retry_after=7.0, attempts=ATTEMPTS[:1]),
        Code.RESOURCE_EXHAUSTED,
        "RetryInfo",
        pushback="7000",
    ),
    told(
        ERROR(Reason.ALL_TARGETS_FAILED, "all failed", retry_after=1.5, attempts=ATTEMPTS),
        Code.UNAVAILABLE,
        "RetryInfo",
        pushback="1500",
        **{
            "attempts": "2",
            "attempt.1": "gpt openai unavailable http_503",
            "attempt.2": "flash gemini timeout -",
        },
    ),
    told(
        ERROR(Reason.STREAM_INTERRUPTED, "broke", usage=Usage(7, 9)),
        Code.ABORTED,
        partial_input_tokens="7",
        partial_output_tokens="9",
    ),
    told(ERROR(Reason.DEADLINE_EXCEEDED, "late", phase=Phase.QUEUE), Code.DEADLINE_EXCEEDED, phase="queue"),
    told(ERROR(Reason.UPSTREAM_AUTH_FAILED, "our key"), Code.INTERNAL, pushback="-1"),
    told(ERROR(Reason.UPSTREAM_MODEL_MISSING, "gone", retry_after=1.0), Code.INTERNAL, pushback="-1"),
    told(
        ERROR(Reason.UNAUTHENTICATED, "who", metadata={"problem": "missing"}),
        Code.UNAUTHENTICATED,
        problem="missing",
    ),
    told(ERROR(Reason.PERMISSION_DENIED, "no"), Code.PERMISSION_DENIED),
    told(ERROR(Reason.INTERNAL, "a bug"), Code.INTERNAL, "RequestInfo"),
]


def test_the_table_is_whole() -> None:
    assert {row.error.reason for row in TABLE} == set(Reason) == set(ROWS)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.error.reason)
async def test_a_row_of_the_table(row: Told) -> None:
    async def fail(_request: ChatRequest, _call: Invocation) -> ChatResult:
        raise row.error

    async with serving(ScriptedRouter(on_chat=fail)) as it:
        answer = await refused(it.stub.Chat(chat_request(), timeout=60, metadata=(("x-request-id", "r-1"),)))
        record = await it.log.next()

    assert answer.code is row.code
    assert answer.message == row.error.message
    assert answer.reason == row.error.reason
    assert answer.details["ErrorInfo"].domain == "modelrouter"
    assert answer.metadata.items() >= row.metadata.items()
    assert set(answer.details) == {"ErrorInfo", *row.details}
    assert answer.trailers.get("grpc-retry-pushback-ms") == row.pushback
    assert answer.trailers["x-request-id"] == "r-1"
    assert (record.code, record.reason) == (row.code.name, row.error.reason)


async def test_a_stream_fails_by_the_same_table() -> None:
    async with serving() as it:
        answer = await refused(all_of(it.stub.StreamChat(chat_request(tools=[{}]))))
    assert answer.code is Code.INVALID_ARGUMENT
    assert answer.details["BadRequest"].field_violations[0].field == "tools[0]"


def test_details_say_what_the_error_says() -> None:
    violations = (Violation("team-a", "10 calls a minute"),)
    quota = _details(ERROR(Reason.QUOTA_EXCEEDED, "over", violations=violations))["QuotaFailure"]
    assert (quota.violations[0].subject, quota.violations[0].description) == ("team-a", "10 calls a minute")

    missing = _details(ERROR(Reason.MODEL_NOT_FOUND, "no route", metadata={"model": "nope"}))["ResourceInfo"]
    assert (missing.resource_type, missing.resource_name) == ("route", "nope")

    assert _details(ERROR(Reason.INTERNAL, "bug"))["RequestInfo"].request_id == "r-1"

    bad = _details(ERROR(Reason.INVALID_REQUEST, "bad", violations=VIOLATIONS))["BadRequest"]
    assert [v.field for v in bad.field_violations] == ["messages[1].role", "model"]


@pytest.mark.parametrize(
    ("wait", "remaining", "pushback"),
    [
        (0.0, None, "0"),
        (0.0004, None, "1"),
        (1.2345, None, "1235"),
        (10.0, None, "10000"),
        (10.001, None, "-1"),
        (5.0, 5.5, "5000"),
        (5.0, 5.0, "-1"),
        (None, 5.0, None),
    ],
)
def test_pushback_is_the_wait_unless_it_is_hopeless(
    wait: float | None, remaining: float | None, pushback: str | None
) -> None:
    error = ERROR(Reason.ALL_TARGETS_FAILED, "all failed", retry_after=wait)
    status = status_of(error, request_id="r", remaining=remaining)
    assert dict(status.trailing_metadata).get("grpc-retry-pushback-ms") == pushback


def test_retry_info_is_honest_where_the_pushback_forbids() -> None:
    info = _details(ERROR(Reason.ROUTER_SATURATED, "full", retry_after=61.5))["RetryInfo"]
    assert info.retry_delay.ToMilliseconds() == 61_500


def _details(error: RouterError) -> dict[str, Any]:
    status = status_of(error, request_id="r-1", remaining=None)
    return unpacked(dict(status.trailing_metadata)["grpc-status-details-bin"])
