"""What vLLM's own scheduler sees of a call: its priority, and that its caller is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from bench.engines import Engine
from modelrouter import AsyncClient
from modelrouter.options import ChatOptions
from tests.vllm.conftest import AT_ONCE, Engines

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

ENDLESS: ChatOptions = {"max_output_tokens": 1500, "provider_options": {"vllm": {"ignore_eos": True}}}
"""Options of an answer that ends only when its caller goes."""

_PATIENCE = 60.0


async def until(engine: Engine, **wanted: int) -> None:
    """Wait until vLLM's gauges have these values."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            metrics = await engine.metrics()
            if all(metrics[f"num_requests_{name}"] == value for name, value in wanted.items()):
                return
            await asyncio.sleep(0.005)


@asynccontextmanager
async def streaming(client: AsyncClient) -> AsyncIterator[None]:
    """Hold a stream that has begun, and cancel it at the end."""
    async with client.stream_chat("Tell me a long story.", **ENDLESS) as stream:
        pieces = aiter(stream)
        await anext(pieces)
        yield


async def test_a_cancelled_call_leaves_the_engine_within_200_ms(
    client: AsyncClient, engines: Engines
) -> None:
    """The best of five: what is measured is the engine, not who else has the processor just then."""
    took = []
    for _ in range(5):
        await until(engines.first, running=0)
        async with streaming(client):
            await until(engines.first, running=1)
            since = time.perf_counter()
        await until(engines.first, running=0)
        took.append(time.perf_counter() - since)
    assert min(took) < 0.2, took


async def test_a_cancelled_whole_answer_leaves_it_too(client: AsyncClient, engines: Engines) -> None:
    await until(engines.first, running=0)
    call = asyncio.create_task(client.chat("Tell me a long story.", **ENDLESS))
    await until(engines.first, running=1)
    call.cancel()
    await until(engines.first, running=0)


async def test_the_more_urgent_call_goes_first(client: AsyncClient, engines: Engines) -> None:
    """To vLLM the lower number is the more urgent, to us the higher."""
    order: list[int] = []

    async def call(priority: int) -> None:
        await client.chat("Hello", priority=priority, max_output_tokens=2)
        order.append(priority)

    async with AsyncExitStack() as others:
        for _ in range(AT_ONCE - 1):
            await others.enter_async_context(streaming(client))
        async with asyncio.TaskGroup() as group, streaming(client):
            # The one that must wait came first.
            for waiting, priority in enumerate((-3, 0, 7), start=1):
                group.create_task(call(priority))
                await until(engines.first, running=AT_ONCE, waiting=waiting)
    assert order == [7, 0, -3]
