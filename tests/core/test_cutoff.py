"""A cutoff ends what runs inside it, and takes nobody else's cancellation for its own."""

from __future__ import annotations

import asyncio

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
