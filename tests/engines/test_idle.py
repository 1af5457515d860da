"""An engine that nobody calls: it sleeps or is stopped, and the next call has it back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.serving import chat, fails, serving
from tests.engines.fakes import FakeEngine, alive, fake, until
from tests.engines.test_serve import becomes, config, health, said, state

SLEEPY = {"idle_sleep": "400ms", "args": "[--enable-sleep-mode]"}


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return fake(tmp_path)


async def test_one_that_can_sleeps_and_is_woken_by_the_next_call(engine: FakeEngine) -> None:
    async with serving(config(engine, **SLEEPY)) as server:
        await becomes(server, "asleep")
        ((pid,),) = engine.lives
        await until(lambda: not health(server, "target/t"))
        assert health(server, "route/chat")
        assert health(server, "readiness")
        assert await said(server) == f"fake-model in {pid}"
        assert engine.naps == ["sleep", "wake"]
        await becomes(server, "asleep")
        status = server.server.assembly.engines["local"].status
        assert (status.wakes, status.restarts) == (1, 0)
        assert status.asleep > 0
    assert not alive(pid)


async def test_one_that_cannot_is_stopped_and_started_by_the_next_call(engine: FakeEngine) -> None:
    async with serving(config(engine, idle_sleep="400ms")) as server:
        await becomes(server, "ready")
        await becomes(server, "stopped")
        ((first,),) = engine.lives
        assert not alive(first)
        assert (await said(server)).startswith("fake-model")
        assert len(engine.lives) == 2
        status = server.server.assembly.engines["local"].status
        assert (status.wakes, status.restarts) == (1, 0)


async def test_one_that_refuses_to_sleep_is_stopped(engine: FakeEngine) -> None:
    engine.order("sleepless")
    async with serving(config(engine, **SLEEPY)) as server:
        await becomes(server, "ready")
        await becomes(server, "stopped")
        assert (await said(server)).startswith("fake-model")


async def test_a_call_waits_for_the_waking_no_longer_than_its_deadline(engine: FakeEngine) -> None:
    async with serving(config(engine, **SLEEPY)) as server:
        await becomes(server, "asleep")
        engine.order("drowsy_long")
        late = await fails(server.stub.Chat(chat(), timeout=2))
        assert (late.reason, late.metadata["phase"]) == ("DEADLINE_EXCEEDED", "queue")
        assert state(server) == "waking"
        waiting = [asyncio.create_task(said(server)) for _ in range(3)]
        await until(lambda: server.limiter("local").queued == 3)
        engine.order()
        await asyncio.gather(*waiting)
        assert len(engine.calls) == 3


async def test_calls_go_to_the_next_target_meanwhile_where_the_configuration_says_so(
    engine: FakeEngine,
) -> None:
    async with serving(config(engine, while_waking="next", **SLEEPY)) as server:
        await becomes(server, "asleep")
        engine.order("drowsy_long")
        assert await said(server, "both") == "from the other"
        await becomes(server, "waking")
        failure = await fails(server.stub.Chat(chat()))
        assert failure.reason == "ALL_TARGETS_FAILED"
        engine.order()
        await becomes(server, "ready")
        assert (await said(server, "both")).startswith("fake-model")


async def test_one_that_does_not_wake_is_started_again(engine: FakeEngine) -> None:
    async with serving(config(engine, start_timeout="6s", **SLEEPY)) as server:
        await becomes(server, "asleep")
        engine.order("drowsy_long")
        call = asyncio.create_task(said(server))
        await until(lambda: state(server) == "backing_off" or len(engine.lives) == 2)
        engine.order()
        assert await call == f"fake-model in {engine.lives[1][0]}"


async def test_calls_at_the_moment_of_falling_asleep_are_all_answered(engine: FakeEngine) -> None:
    async with serving(config(engine, idle_sleep="50ms", args="[--enable-sleep-mode]")) as server:
        await becomes(server, "ready")
        for pause in (0.0, 0.04, 0.05, 0.06, 0.1, 0.15, 0.2) * 5:
            await asyncio.sleep(pause)
            await asyncio.gather(*(said(server) for _ in range(3)))
        assert len(engine.lives) == 1


async def test_one_that_dies_in_its_sleep_is_started_by_the_next_call(engine: FakeEngine) -> None:
    async with serving(config(engine, **SLEEPY)) as server:
        await becomes(server, "asleep")
        engine.order("dies")
        await becomes(server, "stopped")
        engine.order()
        assert (await said(server)).startswith("fake-model")
