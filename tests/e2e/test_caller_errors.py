"""The second table of docs/errors.md, row by row: what the caller sees."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from google.rpc import error_details_pb2

from modelrouter.v1 import chat_pb2
from tests.e2e.serving import (
    Failure,
    answer,
    chat,
    events_of,
    fails,
    pieces,
    serving,
    two_targets,
)
from tests.e2e.test_upstream_failures import refusal
from tests.upstream import SSE_HEAD, End, Reply, Upstream, event, json_reply

BadRequest = error_details_pb2.BadRequest


async def failing(reply_a: Reply, reply_b: Reply, request: Any = None, **call: Any) -> Failure:
    async with Upstream() as a, Upstream() as b:
        a.always(reply_a)
        b.always(reply_b)
        async with serving(two_targets(a, b)) as served:
            failure = await fails(served.stub.Chat(request or chat(), **call))
            assert served.idle
            return failure


def fields(failure: Failure) -> list[str]:
    return [violation.field for violation in failure.detail(BadRequest).field_violations]


async def test_bad_fields_all_in_one_answer() -> None:
    request = chat(generation={"temperature": 9, "maxOutputTokens": 0})
    request.messages[0].role = chat_pb2.ROLE_UNSPECIFIED
    failure = await failing(refusal(500), refusal(500), request)
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert sorted(fields(failure)) == [
        "generation.max_output_tokens",
        "generation.temperature",
        "messages[0].role",
    ]
    assert failure.pushback is None


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (chat_pb2.ChatRequest(model="chat"), "messages"),
        (
            chat_pb2.ChatRequest(
                model="chat",
                messages=[
                    chat_pb2.Message(
                        role=chat_pb2.ROLE_TOOL,
                        content=[
                            chat_pb2.ContentPart(
                                tool_result=chat_pb2.ToolResult(
                                    tool_call_id="nobody", content=[chat_pb2.ContentPart(text="x")]
                                )
                            )
                        ],
                    )
                ],
            ),
            "messages[0].content[0].tool_result.tool_call_id",
        ),
    ],
    ids=["no messages", "a tool result without its call"],
)
async def test_what_is_missing_is_named(request_: Any, field: str) -> None:
    failure = await failing(refusal(500), refusal(500), request_)
    assert failure.code == "INVALID_ARGUMENT"
    assert field in fields(failure)


async def test_three_megabytes_of_prompt_are_no_matter_for_the_router() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(json_reply(answer()))
        async with serving(two_targets(a, b)) as served:
            response = await served.stub.Chat(chat(text="x" * 3_000_000))
            assert response.message.content[0].text == "Hello"
            assert len(a.requests[0].body) > 3_000_000


async def test_unknown_route() -> None:
    failure = await failing(refusal(500), refusal(500), chat("nobody"))
    assert (failure.code, failure.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
    assert failure.detail(error_details_pb2.ResourceInfo).resource_name == "nobody"
    assert failure.pushback is None


async def test_what_no_target_can_do() -> None:
    failure = await failing(refusal(500), refusal(500), chat(responseFormat={"grammar": "root ::= x"}))
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION", "CAPABILITY_UNSUPPORTED")
    assert failure.metadata["capability"] == "grammar"


async def test_too_long_for_every_target() -> None:
    too_long = refusal(400, "context_length_exceeded")
    failure = await failing(too_long, too_long)
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "CONTEXT_LENGTH_EXCEEDED")
    assert fields(failure) == ["messages"]


async def test_content_filter() -> None:
    failure = await failing(refusal(400, "content_filter"), json_reply(answer()))
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION", "CONTENT_FILTERED")


async def test_full_queues() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((End.STALL,))
        async with serving(two_targets(a, b, extra=", max_concurrency: 1, max_queue: 0")) as served:
            holder = served.stub.Chat(chat("only-a"))
            await a.requested()
            failure = await fails(served.stub.Chat(chat("only-a")))
            holder.cancel()
    assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "ROUTER_SATURATED")
    assert failure.retry_after is not None
    assert failure.pushback == str(round(failure.retry_after * 1000))


@pytest.mark.parametrize(("waits", "pushback"), [(("30", "7"), "7000"), (("30", "20"), "-1")])
async def test_every_target_rate_limited(waits: tuple[str, str], pushback: str) -> None:
    limited = [refusal(429, retry_after=wait) for wait in waits]
    failure = await failing(limited[0], limited[1], timeout=5)
    assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "ALL_TARGETS_RATE_LIMITED")
    assert failure.retry_after == pytest.approx(float(waits[1]), abs=0.5)
    if pushback == "-1" or float(waits[1]) > 5:
        assert failure.pushback == "-1", "beyond ten seconds, or the caller's deadline"


async def test_every_target_failed() -> None:
    failure = await failing(refusal(500), refusal(503))
    assert (failure.code, failure.reason) == ("UNAVAILABLE", "ALL_TARGETS_FAILED")
    assert failure.retry_after == 1.0
    assert failure.pushback == "1000"
    assert failure.metadata["attempts"] == "4"
    assert failure.metadata["attempt.1"] == "a1 a unavailable http_500"
    assert failure.metadata["attempt.4"] == "b1 b unavailable http_503"


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "UPSTREAM_AUTH_FAILED"), (404, "UPSTREAM_MODEL_MISSING")]
)
async def test_what_only_our_operators_can_mend(status: int, reason: str) -> None:
    failure = await failing(refusal(status, message="very-secret-a is wrong"), refusal(status))
    assert (failure.code, failure.reason, failure.pushback) == ("INTERNAL", reason, "-1")
    assert "very-secret-a is wrong" not in repr(failure)


async def test_a_broken_stream_is_aborted_with_its_partial_usage() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((*SSE_HEAD, event(pieces("Hel", finish=None)[0]), End.RESET))
        async with serving(two_targets(a, b)) as served:
            events = aiter(served.stub.StreamChat(chat()))
            assert [(await anext(events)).WhichOneof("event") for _ in range(2)] == ["started", "delta"]
            failure = await fails(events)
    assert (failure.code, failure.reason) == ("ABORTED", "STREAM_INTERRUPTED")
    assert failure.metadata["partial_output_tokens"] == "1"


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port whose queue of connections is full: connecting to it takes for ever."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        callers = [socket.socket() for _ in range(4)]
        try:
            for caller in callers:
                caller.setblocking(False)
                caller.connect_ex(("127.0.0.1", port))
            yield port
        finally:
            for caller in callers:
                caller.close()


async def test_the_deadline_names_the_phase_it_ended() -> None:
    phases = {}
    async with Upstream() as a, Upstream() as b:
        text = two_targets(a, b, extra=", max_concurrency: 1").replace("unary: 1s", "unary: 9s")
        a.always((End.STALL,))
        async with serving(text.replace("first_token: 1s, idle: 1s", "first_token: 9s, idle: 9s")) as served:
            phases["first_token"] = await fails(served.stub.Chat(chat("only-a"), timeout=1.5))
            phases["first_token "] = await fails(served.stub.StreamChat(chat("only-a"), timeout=1.5))
            holder = served.stub.Chat(chat("only-a"))
            await a.requested(3)
            phases["queue"] = await fails(served.stub.Chat(chat("only-a"), timeout=1.5))
            holder.cancel()
            await a.connections[-1].closed.wait()
            a.always((*SSE_HEAD, event(pieces("Hel", finish=None)[0]), End.STALL))
            phases["stream"] = await fails(served.stub.StreamChat(chat("only-a"), timeout=1.5))
            assert served.breaker("a1") == "closed", "a caller's haste is not a target's fault"
        with deaf_port() as port:
            deaf = text.replace(a.base_url, f"http://127.0.0.1:{port}/v1").replace(
                "connect: 1s", "connect: 9s"
            )
            async with serving(deaf) as served:
                phases["connect"] = await fails(served.stub.Chat(chat("only-a"), timeout=1.5))
    assert {f"{f.code} {f.reason}" for f in phases.values()} == {"DEADLINE_EXCEEDED DEADLINE_EXCEEDED"}
    assert {name.strip(): f.metadata["phase"] for name, f in phases.items()} == {
        name: name for name in ("first_token", "queue", "stream", "connect")
    }


async def test_a_bug_tells_the_caller_its_request_id_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        address = ("", None)
        max_embed_batch = 1

        async def chat(self, _call: Any) -> Any:
            raise RuntimeError("password hunter2")

        async def close(self) -> None:
            return

    async with Upstream() as a, Upstream() as b, serving(two_targets(a, b)) as served:
        upstream = served.server.assembly.upstreams["a"]
        await upstream.provider.close()
        upstream.provider = Broken()  # type: ignore[assignment]
        with caplog.at_level(logging.ERROR):
            failure = await fails(served.stub.Chat(chat(), metadata=(("x-request-id", "req-77"),)))
        assert served.idle
        assert not b.requests
    assert (failure.code, failure.reason) == ("INTERNAL", "INTERNAL")
    assert failure.detail(error_details_pb2.RequestInfo).request_id == "req-77"
    assert "hunter2" not in repr(failure)


async def test_a_request_id_and_who_answered_travel_in_metadata() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(refusal(503))
        b.always(json_reply(answer()))
        async with serving(two_targets(a, b)) as served:
            call = served.stub.Chat(chat(), metadata=(("x-request-id", "mine-1"),))
            await call
            trailing = dict(await call.trailing_metadata())
            assert trailing["x-request-id"] == "mine-1"
            assert trailing["x-router-target"] == "b1"
            assert trailing["x-fallback-model"] == "model-b"


@pytest.mark.parametrize(
    ("recovery", "ends"), [("STREAM_RECOVERY_RESTART", "finished"), ("STREAM_RECOVERY_NONE", None)]
)
async def test_the_caller_decides_what_a_broken_stream_does(recovery: str, ends: str | None) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((*SSE_HEAD, event(pieces("Hel", finish=None)[0]), End.RESET))
        b.always((*SSE_HEAD, *map(event, pieces("Hel", "lo")), event("[DONE]"), b"0\r\n\r\n"))
        async with serving(two_targets(a, b)) as served:
            call = served.stub.StreamChat(chat(routing={"streamRecovery": recovery}))
            if ends is None:
                assert (await fails(call)).code == "ABORTED"
                return
            events = await events_of(call)
            assert [name for name, _ in events if name != "delta"] == ["started", "reset", ends]
            assert events[-1][1].route.target == "b1"
