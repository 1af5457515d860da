"""Messages leave one at a time, put on their way from wherever they come, and nothing waits in vain."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from grpc import aio

from router_server.core.results import Give, Invocation, StreamEvent
from router_server.core.types import ChatRequest
from router_server.rpc.settings import ServerSettings
from router_server.rpc.stall import StalledError, Steps, Watch
from router_server.rpc.writing import Writing
from tests.clock import virtual_time
from tests.rpc.scripted import ScriptedRouter, all_of, chat_request, delta, finished, serving, started, unread


class Wire:
    """A call whose writes end when a test says so, as those of a server do when the transport says so."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.sent: asyncio.Future[None]

    async def write(self, message: str) -> None:
        self.begun.append(message)
        self.sent = asyncio.get_running_loop().create_future()
        await self.sent
        self.ended.append(message)


def writing(wire: Any, watch: Watch | None = None) -> Writing:
    return Writing(wire, Steps(watch or Watch(60.0)))


async def test_a_message_is_put_on_its_way_without_being_waited_for() -> None:
    wire = Wire()
    async with writing(wire) as one:
        assert one.put("a")
        assert wire.begun == ["a"]
        assert not one.put("b"), "one at a time"
        wire.sent.set_result(None)
        assert one.put("b")
        assert (wire.begun, wire.ended) == (["a", "b"], ["a"])
        wire.sent.set_result(None)
    assert wire.ended == ["a", "b"]


async def test_what_is_written_waits_for_what_was_put() -> None:
    wire = Wire()
    one = writing(wire)
    assert one.put("a")
    second = asyncio.create_task(one.write("b"))
    await asyncio.sleep(0)
    assert wire.begun == ["a"]
    wire.sent.set_result(None)
    await second
    assert wire.begun == ["a", "b"]
    wire.sent.set_result(None)
    await one.end()


async def test_a_write_that_failed_is_told_to_who_waits_not_to_who_puts() -> None:
    wire = Wire()
    one = writing(wire)
    assert one.put("a")
    wire.sent.set_exception(aio.InternalError("gone"))
    assert not one.put("b")
    with pytest.raises(aio.InternalError):
        await one.write("b")
    assert wire.begun == ["a"]


@pytest.mark.parametrize("failed", [False, True])
async def test_a_cancellation_waits_for_no_write(failed: bool, caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire()

    async def put() -> None:
        async with writing(wire) as one:
            one.put("a")
            if failed:
                wire.sent.set_exception(aio.InternalError("gone"))
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await put()
    assert wire.sent.done()
    assert wire.ended == []
    wire.sent = asyncio.get_running_loop().create_future()
    gc.collect()
    assert not caplog.records, "an exception that nobody looked at is logged"


@virtual_time
async def test_what_was_put_has_its_time_and_the_pause_after_it_as_much_as_it_likes() -> None:
    wire, watch = Wire(), Watch(60.0)
    with Steps(watch) as steps:
        async with Writing(wire, steps) as one:  # type: ignore[arg-type]
            one.put("a")
            wire.sent.set_result(None)
            await asyncio.sleep(500)

    async def stalls() -> None:
        with Steps(watch) as steps:
            async with Writing(wire, steps) as one:  # type: ignore[arg-type]
                one.put("b")
                await asyncio.sleep(500)

    with pytest.raises(StalledError):
        await stalls()
    assert asyncio.get_running_loop().time() == pytest.approx(560, abs=1)


async def _given(give: Give | None, text: str) -> None:
    assert give is not None
    while not give(delta(text)):  # noqa: ASYNC110 - what ends is a write of grpc.aio's, which tells nobody
        await asyncio.sleep(0)


async def test_events_that_are_given_arrive_among_those_that_are_yielded() -> None:
    async def gives(_request: ChatRequest, call: Invocation) -> AsyncGenerator[StreamEvent, Give | None]:
        assert (yield started(call)) is not None
        for number in range(0, 30, 3):
            give = yield delta(f"{number} ")
            await _given(give, f"{number + 1} ")
            await _given(give, f"{number + 2} ")
        yield finished()

    async with serving(ScriptedRouter(on_stream=gives)) as it:
        messages = await all_of(it.stub.StreamChat(chat_request()))
        assert "".join(m.delta.text for m in messages) == "".join(f"{n} " for n in range(30))
        assert messages[-1].WhichOneof("event") == "finished"
        assert (await it.log.next()).code == "OK"


async def test_a_reader_that_takes_nothing_of_what_is_given_is_given_up() -> None:
    async def floods(_request: ChatRequest, call: Invocation) -> AsyncGenerator[StreamEvent, Give | None]:
        give = yield started(call)
        while True:
            await _given(give, "x" * 200_000)

    settings = ServerSettings(listen="127.0.0.1:0", write_timeout=0.2)
    async with serving(ScriptedRouter(on_stream=floods), settings) as it:
        (await unread(it)).cancel()
