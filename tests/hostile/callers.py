"""The stage of the tests of hostile callers: a server of its own, and somebody else who calls it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from modelrouter.v1 import service_pb2_grpc
from tests.e2e.process import ServerProcess, served
from tests.e2e.serving import chat

PATIENCE = 2.0
"""Seconds that somebody else's call may take, whatever a hostile caller does.

On a machine that is busy with other things it may take longer, if the server itself worked for less: the
time that a hostile call keeps it busy is what others wait for. The longest known is 1.2 s, for a message of
16 MiB that is five million empty JSON objects.
"""

LIMIT = 16 * 1024 * 1024
"""Bytes of a request that the server takes."""

CONFIGURATION = """
    providers:
      prompt: {kind: static, content: served}
      slow: {kind: mock, latency: 30s, max_concurrency: 8, max_queue: 8}
      words: {kind: mock, reply: one two three four, tokens_per_second: 2}
    targets:
      prompt: {provider: prompt, model: model-p}
      slow: {provider: slow, model: model-s}
      words: {provider: words, model: model-w}
    routes:
      chat: {targets: [prompt]}
      slow: {targets: [slow]}
      words: {targets: [words]}
    telemetry: {log: {format: json, level: info}}
"""


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[ServerProcess]:
    """Serve; at the end fail where a call met a bug of the router."""
    async with served(folder, CONFIGURATION, server="drain_delay: 0s") as server:
        await server.stub.Chat(chat())
        yield server
        assert not server.process.returncode, server.stderr
        assert "failed, request id" not in server.stderr, server.stderr[-4_000:]


@asynccontextmanager
async def others_are_served(server: ServerProcess) -> AsyncIterator[None]:
    """Let somebody else call all the time; fail where one of the calls, or one afterwards, takes over 1 s."""
    over = asyncio.Event()

    async def go_on_calling(stub: Any) -> None:
        while not over.is_set():
            await _one_call(server, stub)
            await asyncio.sleep(0.01)

    async with aio.insecure_channel(
        server.target, options=[("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        stub = service_pb2_grpc.ModelRouterServiceStub(channel)
        await _one_call(server, stub)
        calling = asyncio.create_task(go_on_calling(stub))
        try:
            yield
        finally:
            over.set()
            await asyncio.wait({calling})
        calling.result()
        await _one_call(server, stub)


async def _one_call(server: ServerProcess, stub: Any) -> None:
    began, busy_before = time.monotonic(), _busy(server)
    try:
        answer = await stub.Chat(chat(), timeout=10 * PATIENCE)
    except aio.AioRpcError as error:
        raise AssertionError(f"somebody else's call failed after {time.monotonic() - began:.1f} s") from error
    took = time.monotonic() - began
    assert answer.message.content[0].text == "served"
    busy = _busy(server) - busy_before
    assert min(took, busy) < PATIENCE, f"somebody else's call took {took:.1f} s, {busy:.1f} s of work"


def _busy(server: ServerProcess) -> float:
    times = server.stats.cpu_times()
    return times.user + times.system


async def code_of(call: Any) -> grpc.StatusCode:
    """Return the status of a raw call, OK too."""
    try:
        await call
    except aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
