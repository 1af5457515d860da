"""A whole server and its shared state: health and metrics say how it is, and calls go on without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.process import served
from tests.e2e.serving import chat, serving
from tests.state.servers import SharedServer, shared_server

MOCK = """
providers: {m: {kind: mock}}
targets: {t: {provider: m, model: x}}
routes: {chat: {targets: [t]}}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="mr") as path:
        yield Path(path)


@pytest.fixture
def server(folder: Path) -> Iterator[SharedServer]:
    with shared_server(folder) as running:
        yield running


async def states(channel: aio.Channel) -> AsyncGenerator[str, None]:
    request = health_pb2.HealthCheckRequest(service="state")
    watch = health_pb2_grpc.HealthStub(channel).Watch(request)
    async for answer in watch:
        yield health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    watch.cancel()


async def reached(seen: AsyncGenerator[str, None], wanted: str) -> None:
    async with asyncio.timeout(20):
        async for state in seen:
            if state == wanted:
                return


async def test_health_follows_it_and_calls_do_not_need_it(server: SharedServer) -> None:
    async with (
        serving(f"redis: {server.url}\n{MOCK}") as running,
        aio.insecure_channel(running.target) as channel,
        aclosing(states(channel)) as seen,
    ):
        await reached(seen, "SERVING")
        server.kill()
        while not running.server.works.state.degraded:
            await running.server.works.state._presence.say()
        await reached(seen, "NOT_SERVING")
        assert (await running.stub.Chat(chat())).message.content
        assert running.server.health.ready
        server.start()
        await reached(seen, "SERVING")


async def test_without_one_health_does_not_know_the_name() -> None:
    async with serving(MOCK) as running:
        assert running.server.health.state("state") is None
        assert (await running.stub.Chat(chat())).message.content


async def test_a_server_starts_without_it_and_says_so(folder: Path) -> None:
    url = f"unix://:very-secret-word@{folder}/nobody"
    async with served(folder, f"redis: {url}\n{MOCK}") as running:
        assert await running.health("state") == "NOT_SERVING"
        assert await running.health("readiness") == "SERVING"
        assert (await running.stub.Chat(chat())).message.content
        assert "The shared state is not usable" in running.stderr
