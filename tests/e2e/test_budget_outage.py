"""Three router processes, one budget, and their Redis killed in the middle: what they overspend."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from grpc import aio

from tests.e2e.process import ServerProcess, served
from tests.e2e.serving import chat, failure_of
from tests.state.servers import SharedServer, shared_server

CALLS = 300
"""That the budget pays for: a call costs a tenth of a cent."""

LENT = 3
"""Calls that a process may pay for by itself: one hundredth of them."""

PROCESSES = 3
AT_ONCE = 4
PARTS = f"""
providers: {{m: {{kind: mock}}}}
targets: {{t: {{provider: m, model: x, price: {{request: 0.001}}}}}}
routes: {{chat: {{targets: [t], budget: {{daily_usd: {CALLS / 1_000}, monthly_usd: 1000}}}}}}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="mr") as path:
        yield Path(path)


@pytest.fixture
def server(folder: Path) -> Iterator[SharedServer]:
    with shared_server(folder) as running:
        yield running


@dataclass
class Caller:
    """Calls one process, and counts."""

    process: ServerProcess
    answered: int = 0
    refused: int = 0
    longest_wait: float = 0.0

    async def call(self) -> bool:
        """Make a call; tell whether it was answered. Nothing but a budget may refuse it."""
        try:
            await self.process.stub.Chat(chat(), timeout=30)
        except aio.AioRpcError as error:
            failure = failure_of(error)
            assert failure.reason == "BUDGET_EXCEEDED"
            assert failure.retry_after is not None
            self.longest_wait = failure.retry_after
            self.refused += 1
            return False
        self.answered += 1
        return True

    async def until_refused(self) -> None:
        """Call until nothing is answered any more."""

        async def one() -> None:
            while await self.call():
                pass

        await asyncio.gather(*(one() for _ in range(AT_ONCE)))

    async def state(self, wanted: str) -> None:
        """Wait until the process says so of its shared state."""
        async with aclosing(self.process.watch("state")) as seen:
            async for state in seen:
                if state == wanted:
                    return


async def test_the_bound(folder: Path, server: SharedServer) -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(55):
        callers = []
        for number in range(PROCESSES):
            place = folder / str(number)
            place.mkdir()
            process = await stack.enter_async_context(served(place, f"redis: {server.url}\n{PARTS}"))
            callers.append(Caller(process))
        await asyncio.gather(*(caller.state("SERVING") for caller in callers))
        for _ in range(CALLS // (4 * PROCESSES)):
            assert all(await asyncio.gather(*(caller.call() for caller in callers)))
        before = sum(caller.answered for caller in callers)

        killed = asyncio.gather(*(caller.until_refused() for caller in callers))
        server.kill()
        await killed
        await asyncio.gather(*(caller.state("NOT_SERVING") for caller in callers))
        assert {caller.longest_wait for caller in callers} == {5.0}, "the budget is not used up, only unseen"
        during = sum(caller.answered for caller in callers) - before
        assert during <= PROCESSES * (LENT + AT_ONCE), "what each may lend, and what was in flight"

        server.start()
        await asyncio.gather(*(caller.state("SERVING") for caller in callers))
        while min(caller.longest_wait for caller in callers) <= 5.0:
            await asyncio.gather(*(caller.until_refused() for caller in callers))
        answered = sum(caller.answered for caller in callers)
        assert CALLS <= answered <= CALLS + PROCESSES * LENT
        assert not any(await asyncio.gather(*(caller.call() for caller in callers)))
