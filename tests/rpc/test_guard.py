"""What surrounds every RPC: its ids, its metadata, its record, and that no exception's text leaves."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator

import grpc
import pytest

from router_server.core.errors import Reason, RouterError
from router_server.core.observer import CallRecord, CallStart
from router_server.core.record import replace
from router_server.core.results import ChatResult, Invocation, StreamEvent
from router_server.core.types import ChatRequest, Operation, Usage
from router_server.rpc.current import CallHolder, current_rpc
from tests.rpc.scripted import (
    TRACE_ID,
    TRAIL,
    ScriptedRouter,
    all_of,
    chat_request,
    echo,
    finished,
    refused,
    serving,
    started,
    three_words,
)

SECRET = "sk-very-secret"
FALLBACK = replace(TRAIL, target="flash", upstream_model="gemini 2.5 é flash", fallback=True)


async def test_an_answer_names_its_request_its_trace_and_who_answered() -> None:
    async with serving() as it:
        call = it.stub.Chat(chat_request(), metadata=(("x-request-id", "mine-1"),))
        await call
        behind = dict(await call.trailing_metadata())
    assert behind == {"x-request-id": "mine-1", "x-trace-id": TRACE_ID, "x-router-target": "gpt"}


async def test_a_stream_names_the_fallback_in_ascii() -> None:
    async def by_fallback(_request: ChatRequest, call: Invocation) -> AsyncGenerator[StreamEvent, None]:
        yield started(call)
        yield finished(FALLBACK)

    async with serving(ScriptedRouter(on_stream=by_fallback)) as it:
        call = it.stub.StreamChat(chat_request(), metadata=(("x-request-id", "mine-2"),))
        await all_of(call)
        ahead, after = dict(await call.initial_metadata()), dict(await call.trailing_metadata())
    assert ahead["x-request-id"] == "mine-2"
    assert after == {"x-router-target": "flash", "x-fallback-model": "gemini 2.5 %C3%A9 flash"}


@pytest.mark.parametrize("asked", ["", "two words", "x" * 129, "a;drop"])
async def test_a_strange_request_id_is_replaced_by_the_calls(asked: str) -> None:
    async with serving() as it:
        call = it.stub.Chat(chat_request(), metadata=(("x-request-id", asked),))
        answer = await call
        assert dict(await call.trailing_metadata())["x-request-id"] == answer.id == it.router.calls[0].call_id


async def test_two_calls_under_one_request_id_have_two_call_ids() -> None:
    async with serving() as it:
        for _ in range(2):
            await it.stub.Chat(chat_request(), metadata=(("x-request-id", "retry"),))
    first, second = it.router.calls
    assert first.call_id != second.call_id


async def test_the_observer_sees_trace_context_and_no_credentials() -> None:
    sent = (
        ("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-01"),
        ("authorization", f"Bearer {SECRET}"),
        ("x-api-key", SECRET),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
    )
    async with serving() as it:
        await it.stub.Chat(chat_request(), metadata=sent)
        start = it.log.starts[0]
        record = await it.log.next()
    assert start.metadata["traceparent"] == f"00-{TRACE_ID}-b7ad6b7169203331-01"
    assert start.metadata["tracestate"].replace(" ", "") == "a=1,b=2"
    assert SECRET not in repr(start)
    assert start.method == "modelrouter.v1.ModelRouterService/Chat"
    assert start.peer.startswith("ipv4:127.0.0.1:")
    assert (record.code, record.reason, record.trace_id) == ("OK", "", TRACE_ID)
    assert record.duration > 0


async def test_the_record_carries_the_call_that_the_core_told_of() -> None:
    holder = CallHolder()
    done = CallRecord(CallStart("c", Operation.CHAT, "chat", ChatRequest("chat", ())), 0.5, target="gpt")

    async def observed(request: ChatRequest, call: Invocation) -> ChatResult:
        observation = holder.call(done.start)

        async def elsewhere() -> None:
            observation.ended(done)

        await asyncio.create_task(elsewhere())
        return await echo(request, call)

    async with serving(ScriptedRouter(on_chat=observed)) as it:
        await it.stub.Chat(chat_request())
        assert (await it.log.next()).call is done


@pytest.mark.parametrize("rpc", ["Chat", "StreamChat"])
async def test_an_exceptions_text_reaches_the_log_and_nobody_else(
    rpc: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def chat(_request: ChatRequest, _call: Invocation) -> ChatResult:
        raise ValueError(SECRET)

    async def stream(_request: ChatRequest, call: Invocation) -> AsyncGenerator[StreamEvent, None]:
        yield started(call)
        raise ValueError(SECRET)

    async with serving(ScriptedRouter(on_chat=chat, on_stream=stream)) as it:
        with caplog.at_level(logging.ERROR):
            call = getattr(it.stub, rpc)(chat_request(), metadata=(("x-request-id", "bug-7"),))
            answer = await refused(call if rpc == "Chat" else all_of(call))
        record = await it.log.next()
    assert answer.code is grpc.StatusCode.INTERNAL
    assert answer.reason == Reason.INTERNAL
    assert answer.details["RequestInfo"].request_id == "bug-7"
    assert SECRET not in repr(answer) + repr(record)
    assert SECRET in caplog.text
    assert "bug-7" in caplog.text
    assert [r.name for r in caplog.records] == ["router_server.rpc.guard"]
    assert (record.code, record.reason) == ("INTERNAL", "INTERNAL")


@pytest.mark.parametrize(
    ("rpc", "data"),
    [
        ("Chat", b"\xff\xff\xff"),
        ("StreamChat", b"\x0a\xff\xff\xff\xff\x0f"),
        ("Embed", b"\x0a\x02\xc3\x28"),  # model: two bytes that are not UTF-8
        ("ListModels", b"\x0a"),
    ],
)
async def test_bytes_that_are_no_message_are_the_callers_mistake(rpc: str, data: bytes) -> None:
    async with serving() as it:
        raw = it.channel.unary_unary(f"/modelrouter.v1.ModelRouterService/{rpc}", None, None)
        answer = await refused(raw(data))
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert answer.reason == Reason.INVALID_REQUEST


async def test_a_refusal_before_the_first_event_is_retried_by_grpc_itself() -> None:
    """Only a response of trailers alone is: nothing else was sent, no metadata either."""
    attempts = 0

    async def third_time(request: ChatRequest, call: Invocation) -> AsyncGenerator[StreamEvent, None]:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise RouterError(Reason.ALL_TARGETS_FAILED, "all failed", retry_after=0.01)
        async for event in three_words(request, call):
            yield event

    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.01s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    router = ScriptedRouter(on_stream=third_time)
    async with serving(router, options=[("grpc.service_config", config)]) as it:
        events = await all_of(it.stub.StreamChat(chat_request()))
    assert attempts == 3
    assert events[-1].HasField("finished")


async def test_a_pushback_of_minus_one_stops_grpcs_own_retries() -> None:
    async def failing(_request: ChatRequest, _call: Invocation) -> ChatResult:
        raise RouterError(Reason.UPSTREAM_AUTH_FAILED, "our key is bad")

    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.01s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["INTERNAL"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    async with serving(ScriptedRouter(on_chat=failing), options=[("grpc.service_config", config)]) as it:
        await refused(it.stub.Chat(chat_request()))
        assert len(it.router.calls) == 1


async def test_a_request_that_is_too_large_is_refused_by_the_transport() -> None:
    most = 16 * 1024 * 1024
    async with serving() as it:
        fits = chat_request("x" * (most - 100))
        assert fits.ByteSize() <= most
        large = [("grpc.max_receive_message_length", most)]
        async with grpc.aio.insecure_channel(it.address, options=large) as channel:
            raw = channel.unary_unary("/modelrouter.v1.ModelRouterService/Chat", None, None)
            await raw(fits.SerializeToString())
            answer = await refused(raw(b"\x00" * (most + 1)))
        assert len(it.router.requests) == 1
    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_core_is_told_the_callers_deadline_or_none() -> None:
    async with serving() as it:
        await it.stub.Chat(chat_request(), timeout=30)
        await it.stub.Chat(chat_request())
    with_deadline, without = it.router.calls
    assert with_deadline.timeout is not None
    assert 25 < with_deadline.timeout <= 30
    assert without.timeout is None


async def test_clients_may_compress() -> None:
    async with serving() as it:
        answer = await it.stub.Chat(chat_request("a" * 5_000), compression=grpc.Compression.Gzip)
    assert answer.message.content[0].text == "a" * 5_000


async def test_partial_usage_of_a_broken_stream_is_told() -> None:
    async def breaks(_request: ChatRequest, call: Invocation) -> AsyncGenerator[StreamEvent, None]:
        yield started(call)
        raise RouterError(Reason.STREAM_INTERRUPTED, "the upstream broke off", usage=Usage(5, 6))

    async with serving(ScriptedRouter(on_stream=breaks)) as it:
        answer = await refused(all_of(it.stub.StreamChat(chat_request())))
    assert answer.code is grpc.StatusCode.ABORTED
    assert answer.metadata["partial_output_tokens"] == "6"
    assert answer.trailers["x-router-target"] == "gpt"


async def test_metadata_of_12_kb_comes_through_and_of_64_kb_does_not() -> None:
    async with serving() as it:
        await it.stub.Chat(chat_request(), metadata=(("x-token", "t" * 12_000),))
        answer = await refused(it.stub.Chat(chat_request(), metadata=(("x-token", "t" * 64_000),)))
        assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(it.router.calls) == 1


def test_outside_an_rpc_there_is_no_current_one() -> None:
    with pytest.raises(LookupError, match="guard"):
        current_rpc()
