from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.load import Load, LoadWatch
from router_server.core.provider import EngineLoad, LoadPace
from tests.clock import virtual_time

BUSY = EngineLoad(running=5, waiting=2, cache_used=0.5)


@dataclass(eq=False)
class Asked:
    """An engine, and what it says when it is asked: the last thing for ever."""

    says: list[EngineLoad | Exception | None] = field(default_factory=lambda: [BUSY])
    name: str = "e"
    inflight: int = 0
    load_pace: LoadPace | None = field(default_factory=lambda: LoadPace(1.0, 15.0))
    known: Load = field(default_factory=Load)
    times: list[float] = field(default_factory=list)
    hangs: bool = False

    @property
    def engine(self) -> Told:
        return Told(self)

    async def load(self) -> EngineLoad | None:
        self.times.append(asyncio.get_running_loop().time())
        if self.hangs:
            await asyncio.Event().wait()
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, Exception):
            raise said
        return said


@dataclass(frozen=True)
class Told:
    asked: Asked

    @property
    def name(self) -> str:
        return self.asked.name

    @property
    def inflight(self) -> int:
        return self.asked.inflight

    @property
    def load(self) -> Load:
        return self.asked.known


@asynccontextmanager
async def watched(engines: Sequence[Asked]) -> AsyncIterator[list[str]]:
    changed: list[str] = []
    watch = LoadWatch([(one.engine, one) for one in engines], lambda told: changed.append(told.name))
    running = asyncio.create_task(watch.run())
    try:
        yield changed
    finally:
        running.cancel()
        await asyncio.wait({running})


@pytest.mark.parametrize(
    ("own_then", "own_now", "estimate"),
    [(3, 3, 7), (3, 6, 10), (3, 0, 4), (0, 2, 9), (9, 9, 9), (9, 1, 1)],
)
def test_our_own_calls_move_what_an_engine_said(own_then: int, own_now: int, estimate: float) -> None:
    load = Load()
    load.told(BUSY, own_then)
    assert load.estimate(own_now) == estimate


def test_without_a_word_our_own_calls_count() -> None:
    load = Load()
    assert (load.estimate(4), load.crowded, load.up) == (4, False, None)
    load.told(BUSY, 0)
    load.silent()
    assert (load.estimate(4), load.crowded, load.up) == (4, True, False)
    load.told(None, 0)
    assert (load.estimate(4), load.crowded, load.up) == (4, False, None)


@virtual_time
async def test_an_engine_is_asked_often_while_calls_flow_and_seldom_otherwise() -> None:
    engine = Asked()
    async with watched([engine]):
        await asyncio.sleep(60)
        assert 4 <= len(engine.times) <= 6
        engine.inflight = 1
        await asyncio.sleep(20)
        before = len(engine.times)
        await asyncio.sleep(30)
        assert 27 <= len(engine.times) - before <= 34


@virtual_time
async def test_who_chooses_by_an_idle_engines_load_has_it_asked_at_once_but_not_more_often() -> None:
    engine = Asked()
    async with watched([engine]):
        await asyncio.sleep(3)
        assert len(engine.times) == 1
        engine.known.consulted()
        await asyncio.sleep(0.01)
        assert len(engine.times) == 2
        for _ in range(100):
            engine.known.consulted()
            await asyncio.sleep(0.1)
        assert 9 <= len(engine.times) - 2 <= 12


@virtual_time
async def test_silence_and_its_end_are_told_once_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "router_server.core.load")
    refused = UpstreamError(Outcome.UNAVAILABLE, "refused")
    engine = Asked([BUSY, refused, refused, ValueError("a bug of the kind"), BUSY, BUSY], inflight=1)
    async with watched([engine]) as changed:
        await asyncio.sleep(2.5)
        assert (changed, engine.known.up) == (["e"], False)
        await asyncio.sleep(10)
        assert (changed, engine.known.up, engine.known.engine) == (["e", "e"], True, BUSY)
    assert [record.getMessage() for record in caplog.records if not record.exc_info] == [
        "The engine e has fallen silent; others are asked first.",
        "The engine e answers again.",
    ]


@virtual_time
async def test_one_that_hangs_counts_as_silent_and_holds_nobody_up() -> None:
    stuck, well, mute = Asked(hangs=True), Asked(), Asked(load_pace=None)
    async with watched([stuck, well, mute]):
        await asyncio.sleep(6)
        assert (stuck.known.up, well.known.up) == (False, True)
        assert mute.times == []
