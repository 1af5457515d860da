"""An engine sleeps when all who could call it agree; here one of them is the test, word by word."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from router_server.config.loading import read
from router_server.engines.running import engines_running
from router_server.engines.wanted import engines_of
from tests.engines.fakes import PATIENCE, FakeEngine, fake, until
from tests.engines.test_idle import SLEEPY
from tests.engines.test_serve import config


class Caller:
    def __init__(self, key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._key = key
        self._reader = reader
        self._writer = writer

    async def hears(self, state: str) -> int:
        """Wait for a state, and return its version."""
        async with asyncio.timeout(PATIENCE):
            while True:
                said: dict[str, Any] = json.loads(await self._reader.readline())
                if said["state"] == state:
                    return int(said["version"])

    def says(self, version: int, *, calls: int = 0, wanted: bool = False) -> None:
        report = {"engine": self._key, "version": version, "calls": calls, "progress": 0, "wanted": wanted}
        self._writer.write(json.dumps(report).encode() + b"\n")

    def leaves(self) -> None:
        self._writer.close()


@asynccontextmanager
async def caller_of(engine: FakeEngine) -> AsyncIterator[Caller]:
    settings = read(dedent(config(engine, **SLEEPY)), {}, origin="test")
    async with engines_running(settings, lambda _line: None, asyncio.Event()) as engines:
        (key,) = engines_of(settings, engines.folder)
        caller = Caller(key, *await asyncio.open_unix_connection(engines.folder / "desk"))
        yield caller
        caller.leaves()


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return fake(tmp_path)


async def test_it_waits_for_everyones_word(engine: FakeEngine) -> None:
    async with caller_of(engine) as caller:
        ready = await caller.hears("ready")
        drowsy = await caller.hears("drowsy")
        # What was said before it was drowsy is no word on that.
        caller.says(ready)
        await asyncio.sleep(0.5)
        assert engine.naps == []
        caller.says(drowsy)
        await caller.hears("asleep")
        assert engine.naps == ["sleep"]


async def test_a_call_that_is_in_it_keeps_it_awake(engine: FakeEngine) -> None:
    async with caller_of(engine) as caller:
        drowsy = await caller.hears("drowsy")
        caller.says(drowsy, calls=1)
        ready = await caller.hears("ready")
        await asyncio.sleep(0.8)
        assert engine.naps == []
        caller.says(ready)
        caller.says(await caller.hears("drowsy"))
        await caller.hears("asleep")


async def test_a_call_that_comes_keeps_it_awake(engine: FakeEngine) -> None:
    async with caller_of(engine) as caller:
        caller.says(await caller.hears("drowsy"), wanted=True)
        await caller.hears("ready")
    assert engine.naps == []


async def test_who_has_gone_is_not_waited_for(engine: FakeEngine) -> None:
    async with caller_of(engine) as caller:
        await caller.hears("drowsy")
        caller.leaves()
        await until(lambda: engine.naps == ["sleep"])
