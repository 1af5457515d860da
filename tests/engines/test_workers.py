"""Several workers and one engine: the parent runs it, all use it, and it sleeps when none does."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import pytest

from modelrouter import AsyncClient
from tests.engines.fakes import PATIENCE, FakeEngine, alive, fake, until

CONFIG = """
server: {{listen: '127.0.0.1:0', http_listen: '127.0.0.1:0', workers: 2, drain_delay: 0s}}
providers:
  local: {{kind: vllm, serve: {serve}}}
targets: {{t: {{provider: local, model: m}}}}
routes: {{chat: {{targets: [t]}}}}
"""


@dataclass
class Fleet:
    process: asyncio.subprocess.Process
    out: Path

    @property
    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()

    def word_after(self, beginning: str) -> str:
        (line,) = (line for line in self.lines if line.startswith(beginning))
        return line.removeprefix(beginning).split()[0].rstrip(":")

    async def metrics(self) -> list[str]:
        async with aiohttp.ClientSession() as session, session.get(self.word_after("Metrics on ")) as page:
            return [line for line in (await page.text()).splitlines() if "_engine_" in line]


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: the path of a socket has at most 107 bytes.
    with TemporaryDirectory(prefix="engine-") as name:
        yield Path(name)


@asynccontextmanager
async def fleet(folder: Path, engine: FakeEngine, **keys: str) -> AsyncIterator[Fleet]:
    config, out = folder / "router.yaml", folder / "out"
    config.write_text(CONFIG.format(serve=engine.serve(**keys)))
    with out.open("wb") as stdout:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "router_server", "serve", "--config", str(config)), stdout=stdout
        )
    running = Fleet(process, out)
    try:
        await until(lambda: any("2 workers" in line for line in running.lines))
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_parent_that_is_killed_takes_the_engine_along(folder: Path) -> None:
    engine = fake(folder)
    engine.order("stubborn")
    async with fleet(folder, engine) as running:
        await until(lambda: len(engine.lives) == 1)
        (pids,) = engine.lives
        running.process.kill()
        await running.process.wait()
        await until(lambda: not any(map(alive, pids)))
    assert len(engine.lives) == 1


async def test_a_parent_told_twice_waits_for_no_grace_of_the_engine(folder: Path) -> None:
    engine = fake(folder)
    engine.order("stubborn")
    async with fleet(folder, engine, stop_grace="300s") as running:
        await until(lambda: len(engine.lives) == 1)
        (pids,) = engine.lives
        running.process.terminate()
        await until(lambda: any(line.startswith("Draining") for line in running.lines))
        running.process.terminate()
        async with asyncio.timeout(PATIENCE):
            assert await running.process.wait() == 0
        assert not any(map(alive, pids))


async def test_it_sleeps_when_no_worker_needs_it_and_wakes_for_any(folder: Path) -> None:
    engine = fake(folder)
    keys = {"idle_sleep": "500ms", "args": "[--enable-sleep-mode]"}
    async with fleet(folder, engine, **keys) as running:
        for round_ in range(1, 4):
            await until(lambda: len(engine.naps) == 2 * round_ - 1)  # noqa: B023 - awaited in its own round
            assert engine.naps[-1] == "sleep"
            # A connection stays with one worker: of eight, some are with each.
            answers = await asyncio.gather(*(ask(running.word_after("Serving on ")) for _ in range(8)))
            assert set(answers) == {f"fake-model in {engine.lives[0][0]}"}
        await until(lambda: len(engine.naps) == 7)
        assert len(engine.lives) == 1
        told = await running.metrics()
        assert 'modelrouter_engine_wakes_total{provider="local"} 3.0' in told
        assert 'modelrouter_engine_restarts_total{provider="local"} 0.0' in told


async def test_all_workers_leave_an_engine_for_another_one_and_for_none(folder: Path) -> None:
    engine = fake(folder)
    async with fleet(folder, engine) as running:
        target = running.word_after("Serving on ")
        path = folder / "router.yaml"
        before = path.read_text()

        async def answers() -> set[str]:
            return set(await asyncio.gather(*(ask(target) for _ in range(8))))

        await until(lambda: "local: ready after" in running.out.read_text())
        engine.order("stuck")
        calls = [asyncio.create_task(ask(target)) for _ in range(8)]
        await until(lambda: len(engine.calls) == 8)
        path.write_text(before.replace("model: fake-model", "model: other-model"))
        running.process.send_signal(signal.SIGHUP)
        await until(lambda: "local: wanted no more" in running.out.read_text())
        await asyncio.sleep(1.0)
        assert len(engine.lives) == 1, "there are calls in it, of both workers"
        engine.order()
        assert set(await asyncio.gather(*calls)) == {f"fake-model in {engine.lives[0][0]}"}
        await until(lambda: running.out.read_text().count("local: ready after") == 2)
        assert not alive(engine.lives[0][0])
        assert await answers() == {f"other-model in {engine.lives[1][0]}"}

        path.write_text(before.replace("kind: vllm, serve:", "kind: mock, reply: nobody} # "))
        running.process.send_signal(signal.SIGHUP)
        await until(lambda: not alive(engine.lives[1][0]))
        assert await answers() == {"nobody"}


async def ask(target: str) -> str:
    async with AsyncClient(target) as client:
        return (await client.chat("Hi")).text
