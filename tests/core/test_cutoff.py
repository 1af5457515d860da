"""A cutoff ends what runs inside it, and takes nobody else's cancellation for its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from router_server.core.cutoff import Cutoff
from tests.clock import virtual_time


@virtual_time
async def test_what_takes_too_long_is_cut_off() -> None:
    cutoff = Cutoff(5.0)
    with pytest.raises(TimeoutError), cutoff:
        await asyncio.sleep(60)
    assert cutoff.due
    assert asyncio.get_running_loop().time() == 5.0
    await asyncio.sleep(1)  # the task itself is not cancelled


@virtual_time
async def test_what_ends_in_time_leaves_no_timer() -> None:
    with Cutoff(5.0) as _:
        await asyncio.sleep(1)
    await asyncio.sleep(60)


@virtual_time
async def test_it_can_be_cut_off_at_once_and_twice() -> None:
    cutoff = Cutoff()
    loop = asyncio.get_running_loop()
    loop.call_later(1, cutoff.cut)
    loop.call_later(1, cutoff.cut)
    with pytest.raises(TimeoutError), cutoff:
        await asyncio.sleep(60)
    await asyncio.sleep(1)


@virtual_time
async def test_a_cancellation_by_another_stays_one_even_at_the_same_moment() -> None:
    async def work() -> None:
        with cutoff:
            await asyncio.sleep(60)

    cutoff = Cutoff(5.0)
    task = asyncio.create_task(work())
    asyncio.get_running_loop().call_later(5.0, task.cancel)
    await asyncio.wait({task})
    assert task.cancelled()


@virtual_time
async def test_the_outer_of_two_is_not_taken_for_the_inner() -> None:
    outer, inner = Cutoff(1.0), Cutoff(5.0)
    with pytest.raises(TimeoutError), outer, inner:
        await asyncio.sleep(60)
    assert (outer.due, inner.due) == (True, False)


@virtual_time
async def test_what_fails_by_itself_fails_as_it_did() -> None:
    with pytest.raises(ValueError, match="mine"), Cutoff(5.0):
        raise ValueError("mine")


@virtual_time
async def test_it_can_be_put_off_and_called_off() -> None:
    async def work() -> None:
        with cutoff:
            assert cutoff.when() == 5.0
            cutoff.reschedule(None)
            await asyncio.sleep(60)
            cutoff.reschedule(90.0)
            await asyncio.sleep(60)

    cutoff = Cutoff(5.0)
    with pytest.raises(TimeoutError):
        await work()
    assert asyncio.get_running_loop().time() == 90.0


@virtual_time
async def test_a_thousand_tokens_take_one_timer_for_each_length_of_a_wait() -> None:
    loop, made = asyncio.get_running_loop(), list[float]()
    call_at = loop.call_at

    def counted(when: float, *args: Any, **more: Any) -> asyncio.TimerHandle:
        made.append(when)
        return call_at(when, *args, **more)

    async def tokens(cutoff: Cutoff) -> None:
        for _ in range(1_000):
            await asyncio.sleep(0.02)
            cutoff.reschedule(None)
            cutoff.reschedule(loop.time() + 15)
        await asyncio.sleep(60)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_at", counted)
        with pytest.raises(TimeoutError), Cutoff(15) as cutoff:
            await tokens(cutoff)
    assert loop.time() == pytest.approx(35)
    # The sleeps have timers of their own.
    assert len(made) - 1_001 <= 4


@virtual_time
async def test_it_can_be_brought_forward() -> None:
    loop = asyncio.get_running_loop()

    async def work(cutoff: Cutoff) -> None:
        await asyncio.sleep(1)
        cutoff.reschedule(loop.time() + 2)
        assert cutoff.when() == 3
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError), Cutoff(15) as cutoff:
        await work(cutoff)
    assert loop.time() == 3


@virtual_time
async def test_it_ends_nothing_while_it_is_off_and_can_be_put_on_again() -> None:
    loop = asyncio.get_running_loop()

    async def work(cutoff: Cutoff) -> None:
        cutoff.reschedule(None)
        await asyncio.sleep(100)
        cutoff.reschedule(loop.time() + 5)
        await asyncio.sleep(100)

    with pytest.raises(TimeoutError), Cutoff(5) as cutoff:
        await work(cutoff)
    assert loop.time() == 105
