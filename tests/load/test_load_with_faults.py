"""Hundreds of streams at once over an upstream that does everything wrong and one that answers.

Every call ends in a whole answer of one target or in a documented error, and nothing is left afterwards.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from modelrouter import AsyncClient, Cancelled, ModelRouterError
from router_server.core.errors import Reason
from router_server.rpc.status import ROWS
from tests.load.peer import Peer, peer
from tests.load.upstreams import FAULTS, STEADY, UNSTEADY

SEED = "17"
CLIENTS = 6
PERMITS = 100

GROWTH = 24 * 1024 * 1024
"""Bytes: what the arenas of malloc move by; a leak of 1 kB a call would be more in the long run."""

WHOLE = {"unsteady": UNSTEADY.text, "steady": STEADY.text}

REASONS = frozenset(Reason) - {Reason.INTERNAL}
RESCUED = frozenset({"result", "unary"})
"""The ways of calling that let the router begin again, so that one target that answers is enough."""

UNANSWERABLE = frozenset({Reason.CONTENT_FILTERED})
"""What ends even these: no other target may be asked."""


def configuration(kind: str, urls: Any) -> str:
    return f"""
server: {{listen: "127.0.0.1:0", http_listen: null}}
providers:
  unsteady:
    kind: {kind}
    api_key: very-secret-u
    base_url: {urls["unsteady"]}
    timeouts: {{connect: 1s, first_token: 500ms, idle: 500ms, unary: 1s}}
    breaker: {{open: 500ms, open_max: 1s, failure_threshold: 8, failure_rate: 0.9}}
    health_check: {{interval: 1s, timeout: 1s}}
    max_concurrency: {PERMITS}
    max_queue: 400
    queue_timeout: 20s
  steady:
    kind: {kind}
    api_key: very-secret-s
    base_url: {urls["steady"]}
    health_check: null
    timeouts: {{connect: 20s, first_token: 30s, idle: 30s, unary: 30s}}
    max_concurrency: {PERMITS}
    max_queue: 400
    queue_timeout: 20s
targets:
  unsteady: {{provider: unsteady, model: unsteady}}
  steady: {{provider: steady, model: steady}}
routes:
  chat: {{targets: [unsteady, steady]}}
telemetry: {{log: {{format: json, level: error}}}}
"""


@dataclass
class Load:
    """Callers, and how their calls ended."""

    clients: list[AsyncClient]
    ends: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    async def run(self, at_once: int, seconds: float) -> None:
        """Keep ``at_once`` calls going."""
        numbers, until = count(1), time.monotonic() + seconds

        async def one_after_the_other() -> None:
            while time.monotonic() < until:
                await self.call(next(numbers))

        await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))

    async def call(self, number: int) -> None:
        """Make the call of that number: the same way in every run."""
        draws = random.Random(f"{SEED} {number}")  # noqa: S311 - to be repeated
        way = draws.choice(["result", "result", "result", "text", "unary", "given up"])
        client = self.clients[number % len(self.clients)]
        ends = self.ends.setdefault(way, Counter())
        try:
            ends[await self._made(client, way, number, draws)] += 1
        except ModelRouterError as error:
            ends[error.reason or type(error).__name__] += 1
            self._check(error, way)

    async def _made(self, client: AsyncClient, way: str, number: int, draws: random.Random) -> str:
        words = f"call {number}"
        if way == "unary":
            answer = await client.chat(words, timeout=30)
        elif way == "result":
            answer = await client.stream_chat(words, timeout=30).result()
        elif way == "text":
            stream = client.stream_chat(words, timeout=30)
            text = "".join([piece async for piece in stream])
            answer = stream.answer
            if text != answer.text:
                self.wrong.append(f"{way}: pieces and answer differ")
        else:
            return await self._given_up(client, words, draws.uniform(0, 0.3))
        if answer.text != WHOLE[answer.route.target]:
            self.wrong.append(f"{way}: {answer.route.target} said {answer.text!r}")
        return answer.route.target

    async def _given_up(self, client: AsyncClient, words: str, after: float) -> str:
        stream = client.stream_chat(words, timeout=30)
        asyncio.get_running_loop().call_later(after, stream.cancel)
        await stream.result()
        return "too late"

    def _check(self, error: ModelRouterError, way: str) -> None:
        if isinstance(error, Cancelled):
            if way != "given up":
                self.wrong.append(f"{way}: {error!r}")
            return
        documented = error.reason in REASONS and error.code is ROWS[Reason(error.reason)].code
        if not documented or (way in RESCUED and error.reason not in UNANSWERABLE):
            self.wrong.append(f"{way}: {error!r}")


@dataclass
class Stage:
    """The three processes: upstreams, server, and this one with the callers."""

    upstreams: Peer
    server: Peer
    load: Load

    async def settled(self) -> tuple[Any, Any]:
        """Wait until no call is under way, anywhere; return what server and upstreams tell then."""
        until = time.monotonic() + 20
        while True:
            told, above = await self.server.ask("look"), await self.upstreams.ask("look")
            held = [told["calls"], *told["permits"].values(), *told["queued"].values(), told["unreturned"]]
            # grpc.aio keeps the task of the last RPC until the next, with what that failed with.
            few = len(told["outboxes"]) <= 1 and not any(told["outboxes"])
            if few and not any(held) and not any(one["busy"] for one in above.values()):
                return told, above
            assert time.monotonic() < until, f"something is held: {told} {above}"
            await asyncio.sleep(0.1)

    async def every_fault(self, at_once: int, of_each: int) -> Counter[str]:
        """Go on until each fault was done so often; return how often."""
        until = time.monotonic() + 20
        while True:
            done = Counter(await self.upstreams.ask("done"))
            if all(done[fault] >= of_each for fault in FAULTS):
                return done
            assert time.monotonic() < until, f"not every fault was met: {done}"
            await self.load.run(at_once, 0.5)

    async def recovered(self) -> None:
        """Call until the unsteady target, which is steady now, answers again."""
        until = time.monotonic() + 20
        while True:
            answer = await self.load.clients[0].chat("call 0", timeout=30)
            told = await self.server.ask("look")
            if answer.route.target == "unsteady" and told["breakers"]["unsteady"] == "closed":
                return
            assert time.monotonic() < until, f"the target is still left alone: {told}"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def staged(folder: Path, kind: str) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        upstreams = await stack.enter_async_context(peer("tests.load.upstreams", SEED, kind))
        file = folder / "router.yaml"
        file.write_text(configuration(kind, upstreams.ready))
        server = await stack.enter_async_context(peer("tests.load.server", str(file)))
        target = f"127.0.0.1:{server.ready['port']}"
        clients = [await stack.enter_async_context(AsyncClient(target)) for _ in range(CLIENTS)]
        yield Stage(upstreams, server, Load(clients))


@pytest.mark.parametrize("kind", ["openai", "gemini"])
@pytest.mark.parametrize(
    ("at_once", "seconds", "of_each"),
    [(60, 2, 1), pytest.param(300, 60, 20, marks=[pytest.mark.soak, pytest.mark.timeout(300)])],
)
async def test_nothing_is_lost_and_nothing_is_left(
    at_once: int, seconds: float, of_each: int, kind: str, tmp_path: Path
) -> None:
    async with staged(tmp_path, kind) as stage:
        await stage.load.run(at_once, seconds / 2)  # until pools and arenas have their size
        before, open_before = await stage.settled()
        await stage.load.run(at_once, seconds)
        done = await stage.every_fault(at_once, of_each)
        after, open_after = await stage.settled()
        told = f"{stage.load.ends} {done} {before} {after} {open_after}"
        assert not stage.load.wrong, f"{stage.load.wrong[:5]} {told}"
        assert all(sum(ends.values()) > at_once // 4 for ends in stage.load.ends.values()), told
        assert after["tasks"] <= before["tasks"], told
        assert all(one["open"] <= PERMITS + 1 for one in open_after.values()), told
        # What the upstream has closed lately may still be open in the pool, as many as were ever in use.
        assert own_files(after, open_after) <= own_files(before, open_before) + CLIENTS + PERMITS, told
        assert after["rss"] - before["rss"] < GROWTH, told

        await stage.upstreams.ask("calm")
        await stage.recovered()
        now, _ = await stage.settled()
        assert set(now["breakers"].values()) == {"closed"}
        assert set(now["serving"].values()) == {True}


def own_files(told: Any, above: Any) -> int:
    """Return how many files the server has open beside its idle connections to upstreams."""
    return int(told["files"]) - sum(int(one["open"]) for one in above.values())
