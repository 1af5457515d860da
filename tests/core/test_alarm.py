"""A limit that is put off all the time: it ends what runs inside at the last moment that was named."""

import asyncio
from typing import Any

import pytest

from router_server.core.alarm import Alarm
from tests.clock import virtual_time


@virtual_time
async def test_it_ends_what_takes_too_long() -> None:
    alarm = Alarm(5)
    with pytest.raises(TimeoutError):
        async with alarm:
            await asyncio.sleep(60)
    assert (alarm.expired(), asyncio.get_running_loop().time()) == (True, 5)


@virtual_time
async def test_a_thousand_tokens_take_one_timer_for_each_length_of_a_wait() -> None:
    loop, made = asyncio.get_running_loop(), list[float]()
    call_at = loop.call_at

    def counted(when: float, *args: Any, **more: Any) -> asyncio.TimerHandle:
        made.append(when)
        return call_at(when, *args, **more)

    async def tokens(alarm: Alarm) -> None:
        for _ in range(1_000):
            await asyncio.sleep(0.02)
            alarm.reschedule(None)
            alarm.reschedule(loop.time() + 15)
        await asyncio.sleep(60)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_at", counted)
        with pytest.raises(TimeoutError):
            async with Alarm(15) as alarm:
                await tokens(alarm)
    assert loop.time() == pytest.approx(35)
    # The sleeps have timers of their own.
    assert len(made) - 1_001 <= 4


@virtual_time
async def test_it_can_be_brought_forward() -> None:
    loop = asyncio.get_running_loop()

    async def work(alarm: Alarm) -> None:
        await asyncio.sleep(1)
        alarm.reschedule(loop.time() + 2)
        assert alarm.when() == 3
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        async with Alarm(15) as alarm:
            await work(alarm)
    assert loop.time() == 3


@virtual_time
async def test_it_ends_nothing_while_it_is_off_and_can_be_put_on_again() -> None:
    loop = asyncio.get_running_loop()

    async def work(alarm: Alarm) -> None:
        alarm.reschedule(None)
        await asyncio.sleep(100)
        alarm.reschedule(loop.time() + 5)
        await asyncio.sleep(100)

    with pytest.raises(TimeoutError):
        async with Alarm(5) as alarm:
            await work(alarm)
    assert loop.time() == 105


@virtual_time
async def test_what_is_over_in_time_is_left_alone() -> None:
    async with Alarm(5) as alarm:
        await asyncio.sleep(1)
    await asyncio.sleep(60)
    assert not alarm.expired()


@virtual_time
async def test_a_cancellation_from_outside_stays_one() -> None:
    async def wait() -> None:
        async with Alarm(5):
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
