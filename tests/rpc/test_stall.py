"""Each step of a stream has its time, and one timer looks after all streams."""

import asyncio

import pytest

from router_server.rpc.stall import StalledError, Steps, Watch
from tests.clock import virtual_time


async def write(watch: Watch, *seconds: float, pause: float = 0.0) -> float:
    """Take so many seconds for each step; return when the last ended."""
    with Steps(watch) as steps:
        for step in seconds:
            writing = asyncio.ensure_future(asyncio.sleep(step))
            steps.begin(writing)
            await writing
            await asyncio.sleep(pause)
    return asyncio.get_running_loop().time()


@virtual_time
async def test_a_step_that_takes_too_long_is_cancelled_and_others_go_on() -> None:
    watch = Watch(60.0)
    slow = asyncio.create_task(write(watch, 1, 1, 100))
    well = asyncio.create_task(write(watch, *[50] * 10))
    with pytest.raises(StalledError):
        await slow
    assert asyncio.get_running_loop().time() == pytest.approx(62, abs=0.7)
    assert await well == 500


@virtual_time
async def test_what_lies_between_steps_takes_as_long_as_it_likes() -> None:
    assert await write(Watch(60.0), 1, 1, pause=500) == 1_002


@virtual_time
async def test_many_slow_steps_are_looked_at_now_and_then() -> None:
    watch = Watch(60.0)
    tasks = []
    for _ in range(200):
        tasks.append(asyncio.create_task(write(watch, 100)))
        await asyncio.sleep(0.1)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(error) for error in ended} == {StalledError}
    assert asyncio.get_running_loop().time() == pytest.approx(79.9, abs=0.7)


@virtual_time
async def test_a_cancellation_from_outside_stays_one() -> None:
    task = asyncio.create_task(write(Watch(60.0), 1, 100))
    await asyncio.sleep(10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
