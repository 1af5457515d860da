"""Connections that misbehave: a status or a closed connection for them, and no one else is kept waiting."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from router_server.allocation import KEPT_FREE
from tests.e2e.process import ServerProcess
from tests.e2e.serving import chat, events_of, text_of
from tests.hostile.callers import LIMIT, others_are_served, stage
from tests.hostile.upstreams import MIB, gzipped_zeros
from tests.hostile.wire import NO_SETTINGS, PREFACE, SERVICE, Wire, call_headers, connected, framed

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = framed(chat().SerializeToString())
SLOW = framed(chat("slow").SerializeToString())
LONG = 30.0
"""Seconds that nothing here may take, however busy the machine is."""

READY = HealthCheckRequest(service="readiness")
OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = "0", "3", "8", "12", "13"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    async with stage(tmp_path_factory.mktemp("s")) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def wire(server: ServerProcess) -> AsyncIterator[Wire]:
    async with connected(server.target) as wire:
        yield await wire.begin()


async def settled(server: ServerProcess, descriptors: int) -> None:
    """Wait until the server has no more open files than that."""
    async with asyncio.timeout(10):
        while server.stats.num_fds() > descriptors:  # noqa: ASYNC110 - another process tells no event
            await asyncio.sleep(0.02)


async def test_a_call_by_hand(wire: Wire) -> None:
    assert await wire.ending(await wire.call(call_headers(b"Chat"), CHAT)) == OK


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (b"x-request-id", b"\xff\xfe\x80", OK),
        (b"traceparent", b"\xff" * 55, OK),
        (b"tracestate", b"a=\xc3\x28", OK),
        (b"x-api-key", b"\xe9", OK),
        (b"x-any", bytes(range(0x80, 0x100)), OK),
        (b"user-agent", b"\xff", OK),
        (b"grpc-accept-encoding", b"\xff,gzip", OK),
        (b"grpc-timeout", b"99999999H", OK),
        (b"grpc-timeout", b"-1S", INTERNAL),
        (b"grpc-timeout", b"1x", INTERNAL),
        (b"grpc-timeout", b"", INTERNAL),
        (b"grpc-encoding", b"\xff", INTERNAL),
        (b"x-any-bin", b"!!! no base64 !!!", INTERNAL),
        (b"x-any-bin", b"\xff\xfe", INTERNAL),
    ],
)
async def test_a_header_of_nonsense(
    server: ServerProcess, wire: Wire, name: bytes, value: bytes, expected: str
) -> None:
    async with others_are_served(server), asyncio.timeout(LONG):
        assert await wire.ending(await wire.call(call_headers(b"Chat", (name, value)), CHAT)) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (b":method", b"GET", "reset"),
        (b":path", b"/", UNIMPLEMENTED),
        (b":path", SERVICE + b"Chat/../Chat", UNIMPLEMENTED),
        (b":path", SERVICE + b"Unknown", UNIMPLEMENTED),
        (b":path", b"x" * 8_000, UNIMPLEMENTED),
    ],
    ids=["method", "root", "dots", "unknown", "long"],
)
async def test_a_call_of_nothing(
    server: ServerProcess, wire: Wire, name: bytes, value: bytes, expected: str
) -> None:
    headers = [(key, value if key == name else usual) for key, usual in call_headers(b"Chat")]
    async with others_are_served(server), asyncio.timeout(LONG):
        assert await wire.ending(await wire.call(headers, CHAT)) == expected


@pytest.mark.parametrize("port", ["main", "health"])
async def test_a_method_whose_name_is_no_text_is_survived(tmp_path: Path, port: str) -> None:
    """It ends grpc.aio's server, for which there is another within a moment; what runs is not disturbed."""
    headers = [(k, b"/modelrouter.v1.X/\xff" if k == b":path" else v) for k, v in call_headers(b"Chat")]
    async with stage(tmp_path) as server, asyncio.timeout(LONG):
        stream = server.stub.StreamChat(chat("words"))
        begun = await anext(aiter(stream))
        assert begun.WhichOneof("event") == "started"
        for _ in range(2):
            async with connected(f"unix:{tmp_path}/{port}") as wire:
                await wire.begin()
                await wire.call(headers, b"")
                await asyncio.sleep(0.2)  # who lets go at once may not be heard
            assert await sooner_or_later(lambda: server.stub.Chat(chat(), wait_for_ready=True))
            assert await sooner_or_later(lambda: server.health_stub.Check(READY, wait_for_ready=True))
        assert text_of(await events_of(stream)) == "one two three four"
        server.signal(signal.SIGTERM)
        assert await server.exit_code(within=LONG) == 0
        assert "ended by itself and is replaced" in server.stderr


async def sooner_or_later(call: Callable[[], Any]) -> Any:
    """Return what ``call`` answers once it is no longer lost on a server that ends."""
    while True:
        try:
            return await call()
        except aio.AioRpcError as error:
            if error.code() not in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}:
                raise
        await asyncio.sleep(0.02)


@asynccontextmanager
async def bounded(server: ServerProcess, mebibytes: int) -> AsyncIterator[None]:
    """Fail where the server grows by more than ``mebibytes``, beside what its heap may keep free."""
    before = server.stats.memory_info().rss
    yield
    grown = server.stats.memory_info().rss - before
    assert grown < mebibytes * MIB + KEPT_FREE, f"grew by {grown / MIB:.0f} MiB"


async def test_a_flood_of_headers(server: ServerProcess, wire: Wire) -> None:
    flood = [(b"x-%d" % n, b"y" * 100) for n in range(1_000)]
    async with others_are_served(server), asyncio.timeout(LONG):
        assert await wire.ending(await wire.call(call_headers(b"Chat", *flood), CHAT)) == RESOURCE_EXHAUSTED


async def test_small_headers_that_unpack_to_large_ones(server: ServerProcess, wire: Wire) -> None:
    """HPACK refers to a header that it has seen with one byte: 16 kB stand for 48 MB."""
    flood = [(b"x-again", b"y" * 3_000)] * 16_000
    async with bounded(server, 16), others_are_served(server), asyncio.timeout(LONG):
        assert await wire.ending(await wire.call(call_headers(b"Chat", *flood), CHAT)) == RESOURCE_EXHAUSTED


async def test_a_message_that_decompresses_to_half_a_gigabyte(server: ServerProcess, wire: Wire) -> None:
    bomb = framed(gzipped_zeros(512), compressed=True)
    headers = call_headers(b"Chat", (b"grpc-encoding", b"gzip"))
    async with bounded(server, 64), others_are_served(server), asyncio.timeout(LONG):
        assert await wire.ending(await wire.call(headers, bomb)) == RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, INVALID_ARGUMENT),
        (2, INVALID_ARGUMENT),
        (LIMIT + 1, RESOURCE_EXHAUSTED),
        (2**32 - 1, RESOURCE_EXHAUSTED),
    ],
)
async def test_a_message_that_lies_about_its_length(
    server: ServerProcess, wire: Wire, length: int, expected: str
) -> None:
    body = b"\0" + length.to_bytes(4) + CHAT[5:]
    async with bounded(server, 32), others_are_served(server), asyncio.timeout(LONG):
        assert await wire.ending(await wire.call(call_headers(b"Chat"), body)) == expected


async def flood(wire: Wire, frames: bytes, times: int) -> None:
    """Send ``frames`` over and over, as long as the server takes them, and let it say what it likes."""
    reading = asyncio.create_task(wire.closed())
    for _ in range(times):
        if reading.done() or not await wire.send(frames):
            break
    reading.cancel()
    await asyncio.wait({reading})


async def test_a_flood_of_pings_ends_the_connection(server: ServerProcess, wire: Wire) -> None:
    pings = PingFrame(opaque_data=b"floodpng").serialize() * 1_000
    async with bounded(server, 16), others_are_served(server), asyncio.timeout(LONG):
        await flood(wire, pings, 50)
        await wire.closed()


@pytest.mark.parametrize(
    "setting", [{SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}, {SettingsFrame.HEADER_TABLE_SIZE: 0}]
)
async def test_a_flood_of_settings(server: ServerProcess, wire: Wire, setting: dict[int, int]) -> None:
    settings = SettingsFrame(settings=setting).serialize() * 1_000
    async with bounded(server, 16), others_are_served(server), asyncio.timeout(LONG):
        await flood(wire, settings, 50)


async def test_headers_that_never_end(server: ServerProcess, wire: Wire) -> None:
    more = ContinuationFrame(1, wire.state.encoder.encode([(b"x-a", b"y" * 10_000)])).serialize()
    await wire.send(HeadersFrame(1, wire.state.encoder.encode(call_headers(b"Chat"))).serialize())
    async with bounded(server, 16), others_are_served(server), asyncio.timeout(LONG):
        await flood(wire, more * 10, 500)


async def endings(wire: Wire, count: int) -> tuple[int, int]:
    """Wait until ``count`` streams have ended; return how many were reset, and how many got a status."""
    reset = answered = 0
    async with aclosing(wire.frames()) as frames:
        async for frame in frames:
            reset += isinstance(frame, RstStreamFrame)
            answered += isinstance(frame, HeadersFrame)
            if reset + answered == count:
                break
    return reset, answered


def opened(wire: Wire, stream: int) -> bytes:
    """Return the frame that begins a StreamChat."""
    headers = HeadersFrame(stream, wire.state.encoder.encode(call_headers(b"StreamChat")))
    headers.flags.add("END_HEADERS")
    return headers.serialize()


async def test_streams_reset_as_soon_as_begun(server: ServerProcess, wire: Wire) -> None:
    resets = (opened(wire, n) + RstStreamFrame(n, error_code=8).serialize() for n in range(1, 10_000, 2))
    async with bounded(server, 64), others_are_served(server), asyncio.timeout(LONG):
        await flood(wire, b"".join(resets), 1)


async def test_thousands_of_streams_on_one_connection(server: ServerProcess) -> None:
    descriptors = server.stats.num_fds()
    async with others_are_served(server), asyncio.timeout(LONG):
        async with connected(server.target) as wire:
            await wire.begin()
            frames = bytearray()
            for stream in range(1, 6_000, 2):
                asked = DataFrame(stream, SLOW)
                asked.flags.add("END_STREAM")
                frames += opened(wire, stream) + asked.serialize()
            sending = asyncio.create_task(wire.send(bytes(frames)))
            reset, answered = await endings(wire, 3_000 - 16)
            await sending
        # The provider takes 16, and the server 1,024 at once; a few may end while others begin.
        assert reset >= 3_000 - 1_024 - answered
        assert answered >= 1_024 - 16 - 32
        # The connection is gone, and with it the 16, once the server has heard of it: there is room again,
        # so a call waits and is not refused.
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        while code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            with pytest.raises(aio.AioRpcError) as caught:
                await server.stub.Chat(chat("slow"), timeout=0.5)
            code = caught.value.code()
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    await settled(server, descriptors)


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        PREFACE[:10],
        PREFACE,
        PREFACE + NO_SETTINGS,
        PREFACE + NO_SETTINGS + b"\x00\x40\x00\x01",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\xff" * 100,
    ],
    ids=["nothing", "half a greeting", "greeting", "settings", "half a frame", "HTTP/1.1", "TLS", "noise"],
)
async def test_connections_opened_and_abandoned(server: ServerProcess, beginning: bytes) -> None:
    descriptors = server.stats.num_fds()
    async with others_are_served(server), AsyncExitStack() as open_connections:
        for _ in range(200):
            wire = await open_connections.enter_async_context(connected(server.target))
            await wire.send(beginning)
    await settled(server, descriptors)
