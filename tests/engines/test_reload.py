"""Engines stay, come, change and go while the router runs, and no call that is in one of them is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from textwrap import dedent

import pytest

from router_server.config import Config, read
from tests.e2e.serving import Served, chat, fails, serving
from tests.engines.fakes import PATIENCE, FakeEngine, alive, fake, until
from tests.engines.test_serve import becomes, config, said
from tests.test_succession import reload


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return fake(tmp_path)


def read_(text: str) -> Config:
    return read(dedent(text), {}, origin="test")


def without(engine: FakeEngine) -> str:
    """Return the same configuration with a provider that is no engine."""
    text = config(engine)
    served = f"{{kind: vllm, serve: {engine.serve()}}}"
    assert served in text
    return text.replace(served, "{kind: mock, reply: from no engine}")


def pid_of(engine: FakeEngine, life: int = 0) -> int:
    return engine.lives[life][0]


async def held(served: Served, engine: FakeEngine, model: str = "chat") -> asyncio.Task[str]:
    """Return a call that is in the engine until its orders change."""
    engine.order("stuck")
    calls = len(engine.calls)
    task = asyncio.create_task(said(served, model))
    await until(lambda: len(engine.calls) > calls)
    return task


async def test_one_that_is_described_as_before_runs_on_with_its_calls(engine: FakeEngine) -> None:
    async with serving(config(engine)) as server:
        await becomes(server, "ready")
        call = await held(server, engine)
        await reload(server, read_(config(engine, ", max_queue: 7").replace("from the other", "changed")))
        assert server.limiter("local").inflight == 1
        assert server.limiter("local").limits.max_queue == 7
        engine.order()
        assert await call == f"fake-model in {pid_of(engine)}"
        assert await said(server) == f"fake-model in {pid_of(engine)}"
        assert len(engine.lives) == 1
        assert alive(pid_of(engine))


async def test_what_concerns_the_router_alone_changes_without_a_restart(engine: FakeEngine) -> None:
    async with serving(config(engine)) as server:
        await becomes(server, "ready")
        limiter = server.limiter("local")
        await reload(server, read_(config(engine, idle_sleep="300ms", while_waking="next")))
        assert server.limiter("local") is limiter, "its calls still count"
        await becomes(server, "stopped")
        assert (await fails(server.stub.Chat(chat()))).reason == "ALL_TARGETS_FAILED"
        await reload(server, read_(config(engine, while_waking="queue")))
        await until(lambda: len(engine.lives) == 2)
        await becomes(server, "ready")
        assert await said(server) == f"fake-model in {pid_of(engine, 1)}"


async def test_one_that_comes_is_started_and_answers(engine: FakeEngine) -> None:
    told: list[str] = []
    async with serving(without(engine), announce=told.append) as server:
        assert await said(server) == "from no engine"
        engine.order("slow")
        await reload(server, read_(config(engine)))
        await until(lambda: len(engine.lives) == 1)
        assert await said(server, "both") == "from the other"
        engine.order()
        await becomes(server, "ready")
        assert await said(server) == f"fake-model in {pid_of(engine)}"
    assert not alive(pid_of(engine))
    assert told[0].startswith("local: starting vLLM")


async def test_one_that_goes_ends_with_its_last_call(engine: FakeEngine) -> None:
    async with serving(config(engine)) as server:
        await becomes(server, "ready")
        call = await held(server, engine)
        await reload(server, read_(without(engine)))
        assert await said(server) == "from no engine"
        await asyncio.sleep(1.0)
        assert alive(pid_of(engine)), "there is a call in it"
        engine.order()
        assert await call == f"fake-model in {pid_of(engine)}"
        await until(lambda: not alive(pid_of(engine)))
        assert len(engine.lives) == 1


async def test_one_that_changes_is_exchanged_once_its_last_call_has_ended(engine: FakeEngine) -> None:
    async with serving(config(engine)) as server:
        await becomes(server, "ready")
        call = await held(server, engine, "both")
        await reload(server, read_(config(engine, model="other-model")))
        assert await said(server, "both") == "from the other"
        await asyncio.sleep(0.7)
        assert len(engine.lives) == 1, "two of them may not fit on the machine"
        engine.order()
        assert await call == f"fake-model in {pid_of(engine)}"
        await becomes(server, "ready")
        assert await said(server) == f"other-model in {pid_of(engine, 1)}"
        assert not alive(pid_of(engine))


async def test_one_that_changes_back_at_once_answers_again(engine: FakeEngine) -> None:
    async with serving(config(engine)) as server:
        await becomes(server, "ready")
        call = await held(server, engine)
        await reload(server, read_(config(engine, model="other-model")))
        await reload(server, read_(config(engine)))
        engine.order()
        assert await call == f"fake-model in {pid_of(engine)}"
        await until(lambda: len(engine.lives) == 2)
        await becomes(server, "ready")
        assert await said(server) == f"fake-model in {pid_of(engine, 1)}"
        assert not alive(pid_of(engine))


@pytest.mark.parametrize("orders", ["slow", "broken"])
async def test_one_that_was_never_ready_goes_at_once(engine: FakeEngine, orders: str) -> None:
    engine.order(orders)
    async with serving(config(engine, while_starting="queue")) as server:
        await until(lambda: len(engine.lives) == 1)
        waiting = asyncio.create_task(fails(server.stub.Chat(chat(), timeout=PATIENCE)))
        await until(lambda: server.limiter("local").queued == 1 or waiting.done())
        await reload(server, read_(without(engine)))
        assert (await waiting).reason == "ALL_TARGETS_FAILED"
        await until(lambda: not any(alive(pid) for pids in engine.lives for pid in pids))
        lives = len(engine.lives)
        await asyncio.sleep(0.5)
        assert len(engine.lives) == lives
        assert await said(server) == "from no engine"


async def test_the_server_ends_while_one_is_leaving(engine: FakeEngine) -> None:
    async with serving(config(engine)) as server:
        await becomes(server, "ready")
        call = await held(server, engine)
        await reload(server, read_(config(engine, model="other-model")))
        call.cancel()
    assert not alive(pid_of(engine))
