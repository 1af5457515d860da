"""However the router ends, no process of an engine outlives it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from router_server.cli import main
from tests.e2e.process import served
from tests.engines.fakes import PATIENCE, FakeEngine, alive, fake, until

PARTS = """
providers:
  local: {{kind: vllm, serve: {serve}}}
targets: {{t: {{provider: local, model: m}}}}
routes: {{chat: {{targets: [t]}}}}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: the path of a socket has at most 107 bytes.
    with TemporaryDirectory(prefix="engine-") as name:
        yield Path(name)


def stubborn(folder: Path) -> FakeEngine:
    engine = fake(folder)
    engine.order("stubborn")
    return engine


async def gone(pids: list[int]) -> None:
    await until(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_stop_it_ends_all_first(number: signal.Signals, folder: Path) -> None:
    engine = stubborn(folder)
    async with served(folder, PARTS.format(serve=engine.serve()), server="drain_delay: 0s") as server:
        await until(lambda: len(engine.lives) == 1)
        (pids,) = engine.lives
        assert len(pids) == 3
        assert all(map(alive, pids))
        server.signal(number)
        assert await server.exit_code(30) == 0
        assert not any(map(alive, pids))


@pytest.mark.parametrize("drain_delay", ["0s", "300s"], ids=["while the engine ends", "while it drains"])
async def test_told_twice_it_waits_for_no_grace_of_the_engine(drain_delay: str, folder: Path) -> None:
    engine = stubborn(folder)
    serve = engine.serve(stop_grace="300s")
    async with served(folder, PARTS.format(serve=serve), server=f"drain_delay: {drain_delay}") as server:
        await until(lambda: len(engine.lives) == 1)
        (pids,) = engine.lives
        server.signal(signal.SIGTERM)
        await until(lambda: "Draining" in server.stdout)
        server.signal(signal.SIGTERM)
        assert await server.exit_code(PATIENCE) == 0
        assert not any(map(alive, pids))


async def test_status_tells_how_the_engine_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = fake(folder)
    async with served(folder, PARTS.format(serve=engine.serve(idle_sleep="300ms"))) as server:
        await until(lambda: "The engine local is stopped now" in server.stderr)
        await asyncio.to_thread(main, ["status", "--target", server.target, "--timeout", "30"])
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [
        ["route", "chat", "serving"],
        ["target", "t", "not_serving"],
        ["provider", "local", "unknown"],
        ["engine", "local", "stopped"],
    ]


async def test_killed_it_leaves_nobody(folder: Path) -> None:
    engine = stubborn(folder)
    async with served(folder, PARTS.format(serve=engine.serve())) as server:
        await until(lambda: "ready after" in server.stdout)
        (pids,) = engine.lives
        server.signal(signal.SIGKILL)
        await server.exit_code(30)
        await gone(pids)


async def test_killed_while_the_engine_starts_it_leaves_nobody(folder: Path) -> None:
    engine = fake(folder)
    engine.order("stubborn", "slow")
    async with served(folder, PARTS.format(serve=engine.serve())) as server:
        await until(lambda: len(engine.lives) == 1)
        (pids,) = engine.lives
        server.signal(signal.SIGKILL)
        await server.exit_code(30)
        await gone(pids)


async def test_a_killed_keeper_takes_the_engine_along_and_a_new_one_comes(folder: Path) -> None:
    engine = fake(folder)
    async with served(folder, PARTS.format(serve=engine.serve())) as server:
        await until(lambda: "ready after" in server.stdout)
        ((pid,),) = engine.lives
        (keeper,) = (child for child in server.stats.children() if "keeper.py" in " ".join(child.cmdline()))
        keeper.kill()
        await gone([pid])
        await until(lambda: len(engine.lives) == 2)
