"""Readers that take one message a second of quick upstreams: bounded buffers, and nobody else waits."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from grpc import aio

from modelrouter.v1 import service_pb2_grpc
from router_server.core.outbox import LIMIT
from tests.e2e.serving import chat, events_of, text_of
from tests.load.peer import Peer, peer
from tests.load.quick import PIECE

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOW_MANY = pytest.mark.parametrize("readers", [40, pytest.param(200, marks=pytest.mark.soak)])

LONG = 8_192
"""KiB of an answer that no slow reader comes to the end of: 1.6 GiB for 200 of them."""

SHORT = 240
"""KiB of an answer that the router can hold whole."""

CONNECTIONS = 10
KIB = 1024

UNHARMED = 0.5
"""Seconds in which a short stream is answered, each connection's quickest, on a machine whose other work
takes turns of its own. One that waited for a slow reader's next message would take longer, each of them."""

TRIES = 3

ONE_READ = 72 * KIB
"""Bytes by which a buffer may be over its limit: what one read of 64 KiB brings, and an event begun."""

A_STREAM = 2_048 * KIB
"""Bytes that a slow reader may cost. Measured: 1,300 KiB, for 256 KiB in the outbox, a message of 64 KiB in
all its copies, 400 KiB that aiohttp has read and not handed on, and what malloc makes of it."""


def configuration(url: str) -> str:
    common = f"kind: openai, api_key: very-secret-q, base_url: {url}, health_check: null"
    common += ", max_queue: 400, queue_timeout: 30s"
    common += ", timeouts: {connect: 60s, first_token: 60s, idle: 60s}"
    return f"""
server: {{listen: "127.0.0.1:0", http_listen: null}}
providers:
  wide: {{{common}, max_concurrency: 400}}
  narrow: {{{common}, max_concurrency: 20}}
targets:
  wide: {{provider: wide, model: model}}
  narrow: {{provider: narrow, model: model}}
routes:
  wide: {{targets: [wide]}}
  narrow: {{targets: [narrow]}}
telemetry: {{log: {{format: json, level: error}}}}
"""


@dataclass
class Stage:
    """The three processes: upstream, server, and this one with the readers."""

    upstream: Peer
    server: Peer
    stubs: list[Any]
    """On connections of their own, whose windows do not grow."""

    async def until(self, condition: Callable[[Any], bool]) -> Any:
        """Ask the server how it is until ``condition`` holds, and return that."""
        end = time.monotonic() + 40
        while not condition(told := await self.server.ask("look")):
            assert time.monotonic() < end, told
            await asyncio.sleep(0.5)  # another process tells no event, and counting takes its time
        return told


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(peer("tests.load.quick"))
        file = folder / "router.yaml"
        file.write_text(configuration(upstream.ready["url"]))
        server = await stack.enter_async_context(peer("tests.load.server", str(file)))
        target = f"127.0.0.1:{server.ready['port']}"
        channels = [
            await stack.enter_async_context(aio.insecure_channel(target, options=options))
            for _ in range(CONNECTIONS)
        ]
        yield Stage(
            upstream, server, [service_pb2_grpc.ModelRouterServiceStub(channel) for channel in channels]
        )


async def slowly(stub: Any, route: str, kibibytes: int, offset: float) -> None:
    """Take one message of a stream a second, beginning after ``offset`` seconds."""
    await asyncio.sleep(offset)
    call = stub.StreamChat(chat(route, f"{kibibytes} kibibytes"), timeout=120)
    try:
        async for _ in call:
            await asyncio.sleep(1)
    finally:
        call.cancel()


@asynccontextmanager
async def slow_readers(stage: Stage, readers: int, route: str, kibibytes: int) -> AsyncIterator[None]:
    reading = [
        asyncio.create_task(slowly(stage.stubs[n % CONNECTIONS], route, kibibytes, n / readers))
        for n in range(readers)
    ]
    try:
        yield
    finally:
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)


async def latency(stage: Stage) -> float:
    """Return the seconds that a short stream takes: the quickest of each connection, the median of those."""
    took = [[await _short(stub) for _ in range(TRIES)] for stub in stage.stubs]
    return statistics.median(map(min, took))


async def _short(stub: Any) -> float:
    began = time.monotonic()
    assert text_of(await events_of(stub.StreamChat(chat("wide", "8 kibibytes"), timeout=30))) == PIECE
    return time.monotonic() - began


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("s")) as stage:
        await latency(stage)
        yield stage


@HOW_MANY
async def test_slow_readers_cost_little_and_nobody_else_waits(stage: Stage, readers: int) -> None:
    alone, before = await latency(stage), await stage.server.ask("look")
    async with slow_readers(stage, readers, "wide", LONG):
        await stage.until(lambda told: sum(size >= LIMIT for size in told["outboxes"]) > 0.9 * readers)
        during = await stage.server.ask("look")
        beside = await latency(stage)
    assert len(during["outboxes"]) >= readers
    assert max(during["outboxes"]) <= LIMIT + ONE_READ
    assert during["rss"] - before["rss"] < readers * A_STREAM
    assert during["permits"]["wide"] >= readers, "the upstreams are not done"
    assert beside < max(3 * alone, UNHARMED), (
        f"{alone * 1e3:.1f} ms alone, {beside * 1e3:.1f} ms beside slow readers"
    )
    await stage.until(lambda told: not any((told["calls"], *told["permits"].values())))
    assert (await stage.upstream.ask("look"))["busy"] == 0


@HOW_MANY
async def test_permits_are_back_when_the_upstream_is_done(stage: Stage, readers: int) -> None:
    sent = (await stage.upstream.ask("look"))["sent"]
    async with slow_readers(stage, readers, "narrow", SHORT):
        while (await stage.upstream.ask("look"))["sent"] < sent + readers:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)
        told = await stage.until(lambda told: not (told["permits"]["narrow"] or told["queued"]["narrow"]))
        assert told["calls"] > 0, "every reader was done already"
