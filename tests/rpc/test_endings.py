"""How calls end that nobody finishes: cancelled, late, never read. Whatever they held is freed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest
from grpc import aio

from router_server.core.results import ChatResult, Invocation, StreamEvent
from router_server.core.types import ChatRequest
from router_server.rpc.current import Rpc
from router_server.rpc.delivery import Delivery
from router_server.rpc.settings import ServerSettings
from tests.rpc.scripted import (
    ScriptedRouter,
    all_of,
    chat_request,
    delta,
    read_to_the_end,
    refusal,
    serving,
    started,
    unread,
)

LOOPBACK = "127.0.0.1:0"


async def silent_after_one(_request: ChatRequest, call: Invocation) -> AsyncGenerator[StreamEvent, None]:
    yield started(call)
    await asyncio.Event().wait()


async def endless(_request: ChatRequest, call: Invocation) -> AsyncGenerator[StreamEvent, None]:
    yield started(call)
    while True:
        yield delta("x" * 200_000)


async def never(_request: ChatRequest, _call: Invocation) -> ChatResult:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def test_a_cancelled_stream_is_closed_within_100_ms() -> None:
    async with serving(ScriptedRouter(on_stream=silent_after_one)) as it:
        call = it.stub.StreamChat(chat_request())
        await call.read()
        began = time.monotonic()
        call.cancel()
        await it.router.closed.wait()
        assert time.monotonic() - began < 0.1
        record = await it.log.next()
        assert (record.code, record.reason) == ("CANCELLED", "")
        assert it.router.open_streams == 0


async def test_a_stream_that_is_cancelled_while_it_writes_is_closed() -> None:
    async with serving(ScriptedRouter(on_stream=endless)) as it:
        for _ in range(20):
            it.router.closed.clear()
            call = it.stub.StreamChat(chat_request())
            await call.read()
            call.cancel()
            await it.router.closed.wait()
            assert (await it.log.next()).code == "CANCELLED"
        assert it.router.open_streams == 0


async def test_a_cancelled_unary_call_is_cancelled_in_the_core() -> None:
    ended = asyncio.Event()
    running = asyncio.Event()

    async def waiting(_request: ChatRequest, _call: Invocation) -> ChatResult:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError("unreachable")

    async with serving(ScriptedRouter(on_chat=waiting)) as it:
        call = it.stub.Chat(chat_request())
        pending = asyncio.ensure_future(call)
        await running.wait()
        call.cancel()
        await ended.wait()
        with pytest.raises(asyncio.CancelledError):
            await pending
        assert (await it.log.next()).code == "CANCELLED"


async def test_a_client_that_vanishes_frees_its_streams() -> None:
    async with serving(ScriptedRouter(on_stream=silent_after_one)) as it:
        channel = aio.insecure_channel(it.address, options=[("grpc.use_local_subchannel_pool", 1)])
        raw = channel.unary_stream("/modelrouter.v1.ModelRouterService/StreamChat", None, None)
        calls = [raw(chat_request().SerializeToString()) for _ in range(5)]
        for call in calls:
            await call.read()
        assert it.server.inflight == it.router.open_streams == 5
        await channel.close(None)
        for _ in calls:
            assert (await it.log.next()).code == "CANCELLED"
        assert it.router.open_streams == 0


@pytest.mark.parametrize("rpc", ["Chat", "StreamChat"])
async def test_a_spent_deadline_is_recorded_as_one(rpc: str) -> None:
    async with serving(ScriptedRouter(on_chat=never, on_stream=silent_after_one)) as it:
        call = getattr(it.stub, rpc)(chat_request(), timeout=0.15)
        with pytest.raises(aio.AioRpcError) as caught:
            await (call if rpc == "Chat" else all_of(call))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        record = await it.log.next()
    assert (record.code, record.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")


async def test_a_reader_that_takes_nothing_is_given_up_and_told_so() -> None:
    settings = ServerSettings(listen=LOOPBACK, write_timeout=0.2)
    async with serving(ScriptedRouter(on_stream=endless), settings) as it:
        call = await unread(it)

        # What was sent before is still there, and after it the reason.
        with pytest.raises(aio.AioRpcError) as caught:
            await read_to_the_end(call)
        told = refusal(caught.value)
        assert (told.code, told.reason) == (grpc.StatusCode.ABORTED, "STREAM_INTERRUPTED")
        assert "took no message for 0.2 s" in told.message


async def test_a_reader_that_never_reads_on_holds_nothing() -> None:
    settings = ServerSettings(listen=LOOPBACK, write_timeout=0.1)
    async with serving(ScriptedRouter(on_stream=endless), settings) as it:
        call = it.stub.StreamChat(chat_request())
        await call.read()
        await it.log.next()
        async with asyncio.timeout(3):
            await it.server._inflight.wait_until_empty()
        assert it.server.inflight == 0
        call.cancel()


async def test_a_slow_reader_that_reads_is_served_to_the_end() -> None:
    async def long(_request: ChatRequest, call: Invocation) -> AsyncGenerator[StreamEvent, None]:
        yield started(call)
        for _ in range(100):
            yield delta("x" * 200_000)

    settings = ServerSettings(listen=LOOPBACK, write_timeout=5)
    async with serving(ScriptedRouter(on_stream=long), settings) as it:
        call = it.stub.StreamChat(chat_request())
        count = 0
        async for _ in call:
            count += 1
            await asyncio.sleep(0.001)
        assert count == 101
        assert (await it.log.next()).code == "OK"


async def test_two_thousand_cancelled_streams_leave_no_tasks() -> None:
    async with serving(ScriptedRouter(on_stream=silent_after_one)) as it:
        before = len(asyncio.all_tasks())
        for _ in range(20):
            calls = [it.stub.StreamChat(chat_request()) for _ in range(100)]
            await asyncio.gather(*(call.read() for call in calls))
            for call in calls:
                call.cancel()
            for _ in calls:
                await it.log.next()
        async with asyncio.timeout(3):
            await it.server._inflight.wait_until_empty()
        # grpc.aio's own task of an RPC ends a few turns of the loop after ours.
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) <= before
        assert it.router.open_streams == 0


async def test_a_write_that_the_transport_refuses_is_a_cancellation() -> None:
    """It fails a moment before the news of the cancellation arrives, so no real channel shows it reliably."""

    class Gone:
        async def send_initial_metadata(self, _metadata: object) -> None:
            pass

        async def write(self, _message: object) -> None:
            raise aio.InternalError

    closed = asyncio.Event()

    async def responses() -> AsyncGenerator[str, Any]:
        try:
            yield "one"
        finally:
            closed.set()

    context: Any = Gone()
    with pytest.raises(asyncio.CancelledError):
        await Delivery(1.0).send_all(Rpc("r", "c"), context, responses())
    assert closed.is_set()
