"""Three replicas are restarted one after the other under load, behind a client that knows them all."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from modelrouter import AsyncClient
from tests.distributed.replicas import client_of, replicas, until
from tests.state.servers import SharedServer

WORDS = " ".join(f"word{number}" for number in range(20))

CONFIGURATION = """
server: {{http_listen: null, drain_delay: 0s, drain_grace: 30s}}
redis: {redis}
providers:
  m: {{kind: mock, reply: "{words}", tokens_per_second: 40}}
targets: {{t: {{provider: m, model: x, price: {{request: 0.000001}}}}}}
routes:
  chat:
    targets: [t]
    limits: {{requests_per_minute: 100000}}
    budget: {{daily_usd: 1000}}
    sticky: {{by: user_id}}
"""


@dataclass
class Load:
    """Callers that call one time after another."""

    client: AsyncClient
    unary: int = 0
    streams: int = 0
    lists: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self) -> None:
        """Ask until it is over; whatever fails, fails the test."""
        while not self.over.is_set():
            answer = await self.client.chat("Hi", user_id=f"user-{self.unary % 10}")
            assert answer.text == WORDS
            self.unary += 1

    async def list(self) -> None:
        """Ask for the models all the time: one comes in the moment of a stop."""
        while not self.over.is_set():
            assert [model.name for model in await self.client.models()] == ["chat"]
            self.lists += 1
            await asyncio.sleep(0.002)

    async def read(self) -> None:
        """Read streams until it is over, as plain text: what breaks in the middle would raise."""
        while not self.over.is_set():
            pieces = [piece async for piece in self.client.stream_chat("Hi", user_id="reader")]
            assert "".join(pieces) == WORDS
            self.streams += 1


@pytest.mark.timeout(240)
async def test_no_call_fails(folder: Path, redis: SharedServer) -> None:
    configuration = CONFIGURATION.format(redis=redis.url, words=WORDS)
    async with replicas(folder, configuration) as some, client_of(some) as client:
        load = Load(client)

        async def worked() -> None:
            seen = load.unary, load.streams
            await until(lambda: load.unary > seen[0] + 3 and load.streams > seen[1] + 3)

        async with asyncio.TaskGroup() as group:
            for work in (load.ask, load.read, load.list):
                for _ in range(3):
                    group.create_task(work())
            await worked()
            for one in some:
                await one.restart()
                await worked()
            load.over.set()
        assert load.lists > 100
        # Callers in the middle of a stream know that it broke; the others do not notice that one was killed.
        load = Load(client)
        async with asyncio.TaskGroup() as group:
            for _ in range(24):
                group.create_task(load.ask())
            await until(lambda: load.unary > 24)
            await some[0].end(signal.SIGKILL)
            seen = load.unary
            await until(lambda: load.unary > seen + 48)
            load.over.set()
