"""Leaving without losing a call, and telling those that cannot be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from router_server.core.observer import CallRecord, CallStart
from router_server.core.results import ChatResult, Invocation, StreamEvent
from router_server.core.types import ChatRequest, Operation, Usage
from router_server.rpc.current import current_rpc
from router_server.rpc.settings import ServerSettings
from tests.rpc.scripted import (
    ScriptedRouter,
    Serving,
    all_of,
    chat_request,
    delta,
    finished,
    refused,
    serving,
    started,
    until,
)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Gate:
    """Streams of 40 deltas that stop after the first until the gate opens."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def stream(self, _request: ChatRequest, call: Invocation) -> AsyncGenerator[StreamEvent, None]:
        yield started(call)
        await self.open.wait()
        for number in range(40):
            yield delta(f"{number} ")
            await asyncio.sleep(0)
        yield finished()


@asynccontextmanager
async def fifty_streams(it: Serving) -> AsyncIterator[list[asyncio.Task[list[object]]]]:
    calls = [it.stub.StreamChat(chat_request()) for _ in range(50)]
    firsts = [asyncio.ensure_future(call.read()) for call in calls]
    await asyncio.gather(*firsts)

    async def rest(call: Any) -> list[object]:
        events = []
        while (event := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # not in the stubs
            events.append(event)
        return events

    yield [asyncio.create_task(rest(call)) for call in calls]


async def test_fifty_streams_survive_a_drain() -> None:
    gate = Gate()
    async with serving(ScriptedRouter(on_stream=gate.stream)) as it, fifty_streams(it) as rests:
        assert it.server.inflight == 50
        drain = asyncio.create_task(it.server.drain(0.05, 30))
        await asyncio.sleep(0.2)  # the port is closed by now, and the calls run on
        assert it.server.inflight == 50
        assert not drain.done()
        gate.open.set()
        for events in await asyncio.gather(*rests):
            assert len(events) == 41
        async with asyncio.timeout(5):
            await drain
        assert it.server.inflight == 0
        for _ in range(50):
            assert (await it.log.next()).code == "OK"


async def test_calls_are_taken_during_the_delay_while_readiness_is_gone() -> None:
    async with serving() as it:
        health = health_pb2_grpc.HealthStub(it.channel)
        drain = asyncio.create_task(it.server.drain(0.5, 5))
        await asyncio.sleep(0)
        for name, status in {"readiness": NOT_SERVING, "": NOT_SERVING, "liveness": SERVING}.items():
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == status, name
        events = await all_of(it.stub.StreamChat(chat_request()))
        assert events[-1].HasField("finished")
        await drain
        answer = await refused(it.stub.Chat(chat_request(), timeout=1))
        assert answer.code is grpc.StatusCode.UNAVAILABLE


async def test_what_outlasts_the_grace_is_told_so_with_its_partial_usage() -> None:
    async def stuck(_request: ChatRequest, call: Invocation) -> AsyncGenerator[StreamEvent, None]:
        rpc = current_rpc()
        yield started(call)
        try:
            await asyncio.Event().wait()
        finally:
            start = CallStart(call.call_id, Operation.STREAM, "chat", ChatRequest("chat", ()))
            rpc.call = CallRecord(start, 1.0, usage=Usage(11, 12))

    async def never(_request: ChatRequest, _call: Invocation) -> ChatResult:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with serving(ScriptedRouter(on_stream=stuck, on_chat=never)) as it:
        stream = asyncio.create_task(refused(all_of(it.stub.StreamChat(chat_request()))))
        unary = asyncio.create_task(refused(it.stub.Chat(chat_request())))
        await until(lambda: it.server.inflight == 2)
        async with asyncio.timeout(5):
            await it.server.drain(0, 0.4)
        for told in (await stream, await unary):
            assert (told.code, told.reason) == (grpc.StatusCode.ABORTED, "STREAM_INTERRUPTED")
            assert "shutting down" in told.message
        assert (await stream).metadata["partial_output_tokens"] == "12"
        assert it.router.open_streams == 0
        for _ in range(2):
            record = await it.log.next()
            assert (record.code, record.reason) == ("ABORTED", "STREAM_INTERRUPTED")


async def test_a_reader_that_is_stuck_does_not_hold_the_drain() -> None:
    async def endless(_request: ChatRequest, call: Invocation) -> AsyncGenerator[StreamEvent, None]:
        yield started(call)
        while True:
            yield delta("x" * 200_000)

    async with serving(ScriptedRouter(on_stream=endless)) as it:
        call = it.stub.StreamChat(chat_request())
        await call.read()
        async with asyncio.timeout(5):
            await it.server.drain(0, 0.5)
        assert it.router.open_streams == 0


async def test_a_watch_on_the_main_port_hears_of_the_drain_and_does_not_hold_it() -> None:
    async with serving() as it:
        watch = health_pb2_grpc.HealthStub(it.channel).Watch(
            health_pb2.HealthCheckRequest(service="readiness")
        )
        assert (await watch.read()).status == SERVING
        async with asyncio.timeout(5):
            await it.server.drain(0.05, 60)
        assert (await watch.read()).status == NOT_SERVING


async def test_an_upload_that_has_begun_is_waited_for() -> None:
    """Its RPC is in flight before its request was read."""
    async with serving() as it:
        feed = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            await feed.wait()
            yield chat_request().SerializeToString()

        call = it.channel.stream_unary("/modelrouter.v1.ModelRouterService/Chat", None, None)(slowly())
        await until(lambda: it.server.inflight == 1)
        drain = asyncio.create_task(it.server.drain(0, 10))
        await asyncio.sleep(0.1)
        assert not drain.done()
        feed.set()
        assert await call
        await drain


async def test_a_second_signal_ends_at_once() -> None:
    gate = Gate()
    async with serving(ScriptedRouter(on_stream=gate.stream)) as it, fifty_streams(it) as rests:
        drain = asyncio.create_task(it.server.drain(0, 60))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(2):
            await it.server.stop()
            await drain
        ends = await asyncio.gather(*rests, return_exceptions=True)
        assert all(isinstance(end, aio.AioRpcError) for end in ends)
        assert it.router.open_streams == 0


async def test_the_health_port_is_plain_and_answers_to_the_end() -> None:
    gate = Gate()
    settings = ServerSettings(listen="127.0.0.1:0", health_listen="127.0.0.1:0")
    async with serving(ScriptedRouter(on_stream=gate.stream), settings) as it, fifty_streams(it) as rests:
        assert it.server.health_port not in (0, it.server.port)
        async with aio.insecure_channel(f"127.0.0.1:{it.server.health_port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            drain = asyncio.create_task(it.server.drain(0, 30))
            await asyncio.sleep(0.1)
            live = await health.Check(health_pb2.HealthCheckRequest(service="liveness"))
            assert live.status == SERVING
            ready = await health.Check(health_pb2.HealthCheckRequest(service="readiness"))
            assert ready.status == NOT_SERVING
            with pytest.raises(aio.AioRpcError) as caught:
                await channel.unary_unary("/modelrouter.v1.ModelRouterService/Chat", None, None)(b"")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            gate.open.set()
            await asyncio.gather(*rests)
            await drain
