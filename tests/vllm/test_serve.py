"""The life of a vLLM that a router runs: born, killed, restarted, asleep, awake, and gone with the router."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import psutil
import pytest
import pytest_asyncio

from bench.engines import Engine, Models, serve
from modelrouter import AsyncClient
from modelrouter.options import StreamOptions
from router_server.core.engine import EngineState
from tests.e2e.process import ServerProcess, served
from tests.e2e.serving import serving
from tests.vllm.conftest import CAPITAL, CHAT_ARGUMENTS, PATIENT, Engines

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

PROMPT = "Why is the sky blue? Answer in one sentence."
EXACT: StreamOptions = {"temperature": 0, "max_output_tokens": 200, "stream_recovery": "resume"}
BEGUN = 20
"""Characters of an answer after which its engine is killed."""

_PATIENCE = 240.0
"""Seconds for a start on a machine that has other work."""


@dataclass(frozen=True)
class Life:
    """A router process whose first target is an engine of its own, and whose second is another's."""

    server: ServerProcess
    client: AsyncClient
    log: Path

    @property
    def engine(self) -> Engine:
        """Its engine, as the process that holds it was told."""
        (words,) = [child.cmdline() for child in self.server.stats.children() if "--uds" in child.cmdline()]
        return Engine(Path(words[words.index("--uds") + 1]))

    async def serves(self) -> bool:
        return await self.server.health("target/own") == "SERVING"

    async def sleeps(self) -> bool:
        connector = aiohttp.UnixConnector(str(self.engine.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://vllm/is_sleeping") as answer,
        ):
            return bool((await answer.json())["is_sleeping"])

    async def answering(self) -> str:
        """Return which target answers a call now."""
        return (await self.client.chat(CAPITAL, temperature=0)).route.target


SLEEPING = ("--enable-sleep-mode", "--no-enable-sleep-mode")
"""The router reads the first, and uses /sleep; vLLM the last: without a GPU it refuses the mode, and has the
endpoints all the same."""


@pytest_asyncio.fixture(loop_scope="session")
async def life(engines: Engines, models: Models, tmp_path: Path) -> AsyncIterator[Life]:
    own = serve(
        models.chat,
        "own",
        tmp_path,
        *CHAT_ARGUMENTS,
        *SLEEPING,
        idle_sleep="5s",
        backoff={"first": "100ms"},
    )
    parts = f"""
        providers:
          own: {{kind: vllm, {PATIENT}, serve: {own}}}
          other: {{kind: vllm, {PATIENT}, base_url: "{engines.second.base_url}"}}
        targets:
          own: {{provider: own, model: own}}
          other: {{provider: other, model: second}}
        routes:
          chat: {{targets: [own, other]}}
    """
    with TemporaryDirectory(prefix="life-") as folder:
        # Not tmp_path: the path of a socket has at most 107 bytes.
        async with (
            served(Path(folder), parts, server="drain_delay: 0s") as server,
            AsyncClient(server.target) as client,
        ):
            yield Life(server, client, tmp_path / "own.log")


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that another process does."""
    async with asyncio.timeout(_PATIENCE):
        while not await true():  # noqa: ASYNC110 - of another process there is no event
            await asyncio.sleep(0.1)


async def test_the_life_of_an_engine(life: Life) -> None:
    uncut = await life.client.chat(PROMPT, temperature=0, max_output_tokens=200)
    assert uncut.route.target == "other", "calls do not wait for a start"
    await until(life.serves)
    assert await life.answering() == "own"

    await _killed_in_the_middle(life, uncut.text)
    assert await life.answering() == "other"
    await until(life.serves)
    assert await life.answering() == "own"

    await until(life.sleeps)
    assert await life.answering() == "own"
    assert not await life.sleeps()

    await _drained(life, uncut.text)


async def _killed_in_the_middle(life: Life, uncut: str) -> None:
    """The engine is killed, and the other one says the rest."""
    text, resets = "", []
    async for event in life.client.stream_chat(PROMPT, **EXACT).events():
        text += event.delta.text
        if event.HasField("reset"):
            resets.append((event.reset.resumed, event.reset.route.target))
        elif not resets and len(text) > BEGUN:
            life.engine.kill()
    assert resets == [(True, "other")]
    assert text == uncut


async def _drained(life: Life, uncut: str) -> None:
    """The router is told to end while a stream is under way: the stream ends first, then the engine."""
    processes = life.engine.processes
    text = ""
    stream = life.client.stream_chat(PROMPT, **EXACT)
    async for piece in stream:
        if not text:
            life.server.signal(signal.SIGTERM)
        text += piece
    assert text == uncut
    assert stream.answer.route.target == "own"
    assert await life.server.exit_code(60) == 0
    assert processes
    assert not any(map(psutil.Process.is_running, processes))


async def test_one_without_sleep_is_stopped_and_started_by_the_next_call(
    models: Models, tmp_path: Path
) -> None:
    own = serve(models.embedding, "own", tmp_path, "--runner", "pooling", idle_sleep="1s")
    text = f"""
        providers:
          own: {{kind: vllm, {PATIENT}, serve: {own}}}
        targets:
          own: {{provider: own, model: own}}
        routes:
          embed: {{targets: [own]}}
    """
    async with serving(text) as server, AsyncClient(server.target) as client:
        view = server.server.assembly.engines["own"]
        engine = Engine(Path(server.server.assembly.upstreams["own"].provider.address[0]))

        async def is_stopped() -> bool:
            return view.status.state is EngineState.STOPPED and view.status.start_duration is not None

        await until(is_stopped)
        assert not engine.processes
        answer = await client.embed("A cat sleeps.", timeout=_PATIENCE)
        assert answer.dimensions == 384
        assert (view.status.wakes, view.status.restarts) == (1, 0)
        await until(is_stopped)
        assert not engine.processes
