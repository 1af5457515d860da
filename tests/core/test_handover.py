"""Routers that follow one another, with calls in flight."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from router_server.core.handover import Handover, Tenure
from router_server.core.tending import Tending
from tests.clock import run_in_virtual_time, virtual_time


class Named:
    """A router that answers with its name, when told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.may_answer = asyncio.Event()
        self.closed = 0

    async def chat(self, _request: Any, _invocation: Any) -> Any:
        await self.may_answer.wait()
        return self.name

    embed = chat

    async def stream(self, _request: Any, _invocation: Any) -> Any:
        try:
            yield self.name
            await self.may_answer.wait()
            yield self.name
        finally:
            self.closed += 1

    def models(self) -> Any:
        return (self.name,)


NOTHING: Any = None


async def vacated(tenure: Tenure) -> bool:
    try:
        await asyncio.wait_for(tenure.vacated(), 0.01)
    except TimeoutError:
        return False
    return True


@virtual_time
async def test_a_call_stays_with_the_router_that_took_it() -> None:
    old, new = Named("old"), Named("new")
    door: Any = Handover(old)
    unary = asyncio.create_task(door.chat(NOTHING, NOTHING))
    await asyncio.sleep(0)
    async with aclosing(door.stream(NOTHING, NOTHING)) as events:
        first = await anext(events)
        ending = door.hand_over(new)
        new.may_answer.set()
        after = await door.embed(NOTHING, NOTHING)
        assert (first, after, door.models()) == ("old", "new", ("new",))
        assert not await vacated(ending)
        old.may_answer.set()
        assert await unary == "old"
        assert [event async for event in events] == ["old"]
        assert not await vacated(ending), "the stream's generator is still open"
    assert await vacated(ending)
    assert old.closed == 1


@virtual_time
async def test_a_stream_that_is_left_early_or_cancelled_is_counted_out() -> None:
    old = Named("old")
    door = Handover(old)
    async with aclosing(door.stream(NOTHING, NOTHING)) as events:
        await anext(events)
    never_begun = door.stream(NOTHING, NOTHING)
    await never_begun.aclose()
    await never_begun.aclose()
    call = asyncio.create_task(door.chat(NOTHING, NOTHING))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait({call})
    assert await vacated(door.hand_over(Named("new")))


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.sampled_from(["chat", "stream", "hand over", "answer"]), max_size=30))
def test_no_sequence_of_handovers_loses_a_call_or_ends_a_tenure_early(steps: list[str]) -> None:
    async def run() -> None:
        routers = [Named("0")]
        door = Handover(routers[0])
        calls: list[tuple[str, asyncio.Task[Any]]] = []
        ended: list[tuple[Named, Tenure]] = []

        async def stream() -> Any:
            async with aclosing(door.stream(NOTHING, NOTHING)) as events:
                return [event async for event in events][-1]

        for step in steps:
            match step:
                case "chat":
                    calls.append((routers[-1].name, asyncio.create_task(door.chat(NOTHING, NOTHING))))
                case "stream":
                    calls.append((routers[-1].name, asyncio.create_task(stream())))
                case "hand over":
                    routers.append(Named(str(len(routers))))
                    ended.append((routers[-2], door.hand_over(routers[-1])))
                case _:
                    routers[len(routers) // 2].may_answer.set()
            await asyncio.sleep(0.01)
            for router, tenure in ended:
                running = [name for name, call in calls if name == router.name and not call.done()]
                assert tenure.calls == len(running)
                assert await vacated(tenure) is not bool(running)
        for router in routers:
            router.may_answer.set()
        assert [await call for _, call in calls] == [name for name, _ in calls]
        assert all([await vacated(tenure) for _, tenure in ended])

    run_in_virtual_time(run())


@virtual_time
async def test_what_is_tended_is_not_disturbed_by_what_comes_and_goes() -> None:
    begun: list[str] = []
    ended: list[str] = []

    async def work(thing: str) -> None:
        begun.append(thing)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(thing)

    tending = Tending(work, str)
    tending.change("ab")
    running = asyncio.create_task(tending.run())
    await asyncio.sleep(1)
    tending.change("bc")
    await asyncio.sleep(1)
    assert (begun, ended) == (["a", "b", "c"], ["a"])
    tending.change("a")
    tending.change("bc")
    await asyncio.sleep(1)
    assert (begun, ended) == (["a", "b", "c"], ["a"]), "a change that was taken back was none"
    running.cancel()
    await asyncio.wait({running})
    assert sorted(ended) == ["a", "b", "c"]
