"""The first table of docs/errors.md, row by row: what an upstream does, and what the router does then."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from modelrouter.v1 import common_pb2
from tests.e2e.serving import answer, chat, events_of, fails, pieces, serving, text_of, two_targets
from tests.upstream import End, Reply, Upstream, head, json_reply, sse_reply


def refusal(status: int, code: str = "", message: str = "no", **headers: str) -> Reply:
    error = {"message": message, "type": "error", "code": code or None}
    return json_reply({"error": error}, status, {k.replace("_", "-"): v for k, v in headers.items()})


@dataclass(frozen=True)
class Row:
    """One thing an upstream does; ``code`` is set where the call ends with it, unanswered by the other."""

    does: str
    reply: Reply
    outcome: str
    asked: int = 1
    code: str | None = None
    opens_after: int | None = None
    more: dict[str, Any] = field(default_factory=dict)


ROWS = [
    *(
        Row(f"{status}", refusal(status), "INVALID_REQUEST", code="INVALID_ARGUMENT")
        for status in (400, 409, 413, 415, 422, 418)
    ),
    Row("context", refusal(400, "context_length_exceeded"), "CONTEXT_LENGTH"),
    Row("filter", refusal(400, "content_filter"), "CONTENT_FILTER", code="FAILED_PRECONDITION"),
    Row("401", refusal(401), "AUTH", opens_after=1),
    Row("402", refusal(402), "AUTH", opens_after=1),
    Row("403", refusal(403), "AUTH"),
    Row("quota", refusal(429, "insufficient_quota"), "AUTH", opens_after=1),
    Row("404", refusal(404), "MODEL_MISSING"),
    Row("429", refusal(429, retry_after="30"), "RATE_LIMITED"),
    *(
        Row(f"{status}", refusal(status), "UNAVAILABLE", asked=2, opens_after=5)
        for status in (408, 425, 500, 502, 503, 504, 529)
    ),
    Row("reset", (End.RESET,), "UNAVAILABLE", asked=2, opens_after=5),
    Row("close", (End.CLOSE,), "UNAVAILABLE", asked=2, opens_after=5),
    Row(
        "redirect",
        (head(302, {"Location": "http://127.0.0.1:1/", "Content-Length": "0"}),),
        "MALFORMED",
        opens_after=5,
    ),
    Row(
        "html",
        (head(200, {"Content-Length": "6"}, content_type="text/html") + b"<html>",),
        "MALFORMED",
        opens_after=5,
    ),
    Row("wrong shape", json_reply({"choices": "none"}), "MALFORMED", opens_after=5),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.does)
@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
async def test_every_class(row: Row, *, streaming: bool) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(row.reply)
        b.always(sse_reply(pieces("Hel", "lo")) if streaming else json_reply(answer()))
        async with serving(two_targets(a, b)) as served:
            call = served.stub.StreamChat if streaming else served.stub.Chat
            if row.code is not None:
                failure = await fails(call(chat()))
                assert failure.code == row.code
                assert not b.requests
            elif streaming:
                events = await events_of(call(chat()))
                assert text_of(events) == "Hello"
                route = events[0][1].route
                assert [name for name, _ in events][-1] == "finished"
                assert route.target == "b1"
                assert common_pb2.Attempt.Outcome.Name(route.attempts[0].outcome) == f"OUTCOME_{row.outcome}"
            else:
                response = await call(chat())
                assert response.message.content[0].text == "Hello"
                outcome = response.route.attempts[0].outcome
                assert common_pb2.Attempt.Outcome.Name(outcome) == f"OUTCOME_{row.outcome}"
            assert len(a.requests) == row.asked
            if row.opens_after == 1:
                assert served.breaker("a1") == "open"
            else:
                assert served.breaker("a1") == "closed"
            assert served.idle


@pytest.mark.parametrize("row", [r for r in ROWS if r.opens_after == 5], ids=lambda row: row.does)
async def test_five_failing_calls_open_the_breaker_and_the_target_is_left_alone(row: Row) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(row.reply)
        b.always(json_reply(answer()))
        async with serving(two_targets(a, b)) as served:
            for _ in range(5):
                await served.stub.Chat(chat())
            assert served.breaker("a1") == "open"
            asked = len(a.requests)
            response = await served.stub.Chat(chat())
            assert len(a.requests) == asked
            outcome = response.route.attempts[0].outcome
            assert common_pb2.Attempt.Outcome.Name(outcome) == "OUTCOME_CIRCUIT_OPEN"


async def test_refused_connections_are_unavailable() -> None:
    async with Upstream() as a, Upstream() as b:
        b.always(json_reply(answer()))
        text = two_targets(a, b)
        await a.stop()
        async with serving(text) as served:
            response = await served.stub.Chat(chat())
            assert [x.error_reason for x in response.route.attempts] == ["refused", "refused", ""]


async def test_a_name_that_does_not_resolve_is_unavailable() -> None:
    async with Upstream() as a, Upstream() as b:
        b.always(json_reply(answer()))
        text = two_targets(a, b).replace(a.base_url, "http://no-such-host.invalid/v1")
        async with serving(text) as served:
            response = await served.stub.Chat(chat())
            assert response.route.attempts[0].error_reason == "dns"


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
async def test_silence_is_a_timeout(*, streaming: bool) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((End.STALL,))
        b.always(sse_reply(pieces("Hello")) if streaming else json_reply(answer()))
        async with serving(two_targets(a, b)) as served:
            if streaming:
                events = await events_of(served.stub.StreamChat(chat()))
                attempts = events[0][1].route.attempts
            else:
                attempts = (await served.stub.Chat(chat())).route.attempts
            assert attempts[0].outcome == common_pb2.Attempt.OUTCOME_TIMEOUT
            assert len(a.requests) == 1
            await a.connections[0].closed.wait()


async def test_a_rate_limited_target_rests_exactly_as_long_as_it_asked() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(refusal(429, retry_after="30"))
        b.always(json_reply(answer()))
        async with serving(two_targets(a, b)) as served:
            await served.stub.Chat(chat())
            rest = served.server.assembly.targets["a1"].cooldown.remaining
            assert 29 < rest <= 30
            await served.stub.Chat(chat())
            assert len(a.requests) == 1


async def test_a_stream_that_ends_without_a_finish_reason_is_malformed() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(sse_reply([], done=False))
        b.always(sse_reply(pieces("Hello")))
        async with serving(two_targets(a, b)) as served:
            events = await events_of(served.stub.StreamChat(chat()))
            first = events[0][1].route.attempts[0]
            assert (first.outcome, first.error_reason) == (
                common_pb2.Attempt.OUTCOME_MALFORMED,
                "no_finish_reason",
            )


async def test_an_error_inside_a_stream_is_classed_by_its_own_code() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(sse_reply([{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}]))
        b.always(sse_reply(pieces("Hello")))
        async with serving(two_targets(a, b)) as served:
            events = await events_of(served.stub.StreamChat(chat()))
            assert events[0][1].route.attempts[0].outcome == common_pb2.Attempt.OUTCOME_RATE_LIMITED


async def test_our_own_full_queue_is_saturated() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((End.STALL,))
        b.always(json_reply(answer()))
        async with serving(two_targets(a, b, extra=", max_concurrency: 1, max_queue: 0")) as served:
            holder = served.stub.Chat(chat("only-a"))
            await a.requested()
            response = await served.stub.Chat(chat())
            assert response.route.attempts[0].outcome == common_pb2.Attempt.OUTCOME_SATURATED
            holder.cancel()
            await a.connections[0].closed.wait()
