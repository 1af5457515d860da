"""Several workers on one port, as processes."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent

import aiohttp
import psutil
import pytest

from modelrouter import AsyncClient
from router_server.config import read
from router_server.workers import WorkerError, divided, reserved

_START = 30.0
"""Seconds that two processes may take to start on a busy machine."""

CONFIG = """
server: {listen: "127.0.0.1:0", http_listen: "127.0.0.1:0", workers: 2, drain_delay: 0s, drain_grace: 20s}
providers: {m: {kind: mock, reply: "one two three four five six", tokens_per_second: 20, max_concurrency: 9}}
targets: {t: {provider: m, model: x, max_concurrency: 5}}
routes: {chat: {targets: [t]}}
"""


class Fleet:
    def __init__(self, process: asyncio.subprocess.Process, lines: list[str]) -> None:
        self.process = process
        self.target = lines[0].removeprefix("Serving on ").removesuffix(":")
        self.metrics = next(line for line in lines if "Metrics on" in line).split()[-1]

    @property
    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    async def readiness(self) -> int:
        ready = self.metrics.replace("/metrics", "/readyz")
        async with aiohttp.ClientSession() as session, session.get(ready) as response:
            return response.status

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await self.process.wait()


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    path = folder / "router.yaml"
    path.write_text(CONFIG)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "router_server", "serve", "--config", str(path)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(_START):
            while not lines or "workers" not in lines[-1]:
                line = (await process.stdout.readline()).decode()
                assert line, "it ended"
                lines.append(line.strip())
        yield Fleet(process, lines)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_two_workers_share_a_port_and_their_metrics_are_one_sum(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        assert len(running.workers) == 2
        for _ in range(8):
            # A channel of its own each time, so that both workers get some; options keep them apart.
            async with AsyncClient(
                running.target, channel_options=[("grpc.use_local_subchannel_pool", 1)]
            ) as client:
                assert (await client.chat("hi", model="chat")).text == "one two three four five six"
        async with aiohttp.ClientSession() as session, session.get(running.metrics) as response:
            text = await response.text()
        assert 'modelrouter_attempts_total{outcome="ok",target="t"} 8.0' in text
        assert "modelrouter_workers_unreachable 0.0" in text
        workers = running.workers
        assert await running.end() == 0
        assert not any(worker.is_running() for worker in workers)


async def test_running_streams_survive_the_end_of_a_fleet(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running, AsyncClient(running.target) as client:
        pieces: list[str] = []
        async for piece in client.stream_chat("hi", model="chat"):
            if not pieces:
                assert await running.readiness() == 200
                running.process.send_signal(signal.SIGTERM)
                while await running.readiness() == 200:
                    pass
            pieces.append(piece)
        assert "".join(pieces) == "one two three four five six"
        assert await running.process.wait() == 0


async def test_all_workers_take_a_new_configuration_or_none_does(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        path = tmp_path / "router.yaml"

        async def answers() -> set[str]:
            texts = set()
            for _ in range(8):
                async with AsyncClient(
                    running.target, channel_options=[("grpc.use_local_subchannel_pool", 1)]
                ) as client:
                    texts.add((await client.chat("hi", model="chat")).text)
            return texts

        async def reloads(outcome: str) -> None:
            running.process.send_signal(signal.SIGHUP)
            wanted = f'modelrouter_config_reloads_total{{outcome="{outcome}"}} 1.0'
            async with asyncio.timeout(_START), aiohttp.ClientSession() as session:
                while True:
                    async with session.get(running.metrics) as response:
                        if wanted in await response.text():
                            return

        quick = CONFIG.replace("tokens_per_second: 20, ", "")
        path.write_text(
            quick.replace("one two", "uno due").replace("max_concurrency: 9", "max_concurrency: 1")
        )
        await reloads("refused")
        assert await answers() == {"one two three four five six"}
        path.write_text(quick.replace("one two", "uno due"))
        async with AsyncClient(running.target) as client:
            stream = aiter(client.stream_chat("hi", model="chat"))
            begun = await anext(stream)
            await reloads("taken")
            assert await answers() == {"uno due three four five six"}
            assert begun + "".join([piece async for piece in stream]) == "one two three four five six"
        assert await running.end() == 0


async def test_a_worker_that_dies_ends_the_fleet_with_an_error(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        running.workers[0].kill()
        assert await running.process.wait() != 0


async def test_no_worker_outlives_a_parent_that_was_killed(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        workers = running.workers
        running.process.kill()
        await running.process.wait()
        _gone, alive = await asyncio.to_thread(psutil.wait_procs, workers, 20)
        assert not alive


def test_each_worker_has_its_share_of_every_limit() -> None:
    share = divided(
        read(dedent(CONFIG).replace("kind: mock", "kind: mock, adaptive: {min: 3}"), {}, origin="t")
    )
    assert (share.providers["m"].max_concurrency, share.providers["m"].max_queue) == (4, 64)
    assert share.providers["m"].adaptive is not None
    assert share.providers["m"].adaptive.min == 1
    assert share.targets["t"].max_concurrency == 2


def test_a_port_that_someone_listens_on_cannot_be_shared() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(WorkerError, match="already in use; stop whoever listens"), reserved(address):
            pass
    with reserved("127.0.0.1:0") as first, pytest.raises(WorkerError), reserved(first):
        pass


def test_a_socket_file_cannot_be_shared(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="workers: 1"), reserved(f"unix:{tmp_path}/s"):
        pass
