"""The moment in which a server stops: one in which no call arrives, if there is one soon."""

from __future__ import annotations

import asyncio

from router_server.rpc.inflight import InFlight
from tests.clock import virtual_time


async def arriving(inflight: InFlight, every: float, until: float) -> None:
    loop = asyncio.get_running_loop()

    async def call() -> None:
        inflight.count_current_task()

    while loop.time() < until:
        await asyncio.create_task(call())
        await asyncio.sleep(every)


async def waited(inflight: InFlight, patience: float) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await inflight.wait_for_lull(patience)
    return loop.time() - began


@virtual_time
async def test_where_nothing_arrives_it_is_now() -> None:
    assert await waited(InFlight(), 1.0) < 0.01


@virtual_time
async def test_it_comes_after_the_last_of_many() -> None:
    inflight = InFlight()
    arrivals = asyncio.create_task(arriving(inflight, every=0.002, until=0.5))
    assert 0.5 <= await waited(inflight, 1.0) < 0.52
    await arrivals


@virtual_time
async def test_it_is_not_waited_for_for_ever() -> None:
    inflight = InFlight()
    arrivals = asyncio.create_task(arriving(inflight, every=0.002, until=3.0))
    assert 1.0 <= await waited(inflight, 1.0) < 1.01
    arrivals.cancel()
    await asyncio.wait({arrivals})
