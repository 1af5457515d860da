"""A server in a process of its own: ``router-server serve --config``, told to stop by signals.

It listens on socket files in its folder, so that no port has to be guessed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import psutil
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelrouter.v1 import service_pb2_grpc
from tests.secrecy import must_not_show

_START = 30.0
"""Seconds that a start may take on a busy machine."""


@dataclass
class ServerProcess:
    """The process, and channels to its service and its health port."""

    process: asyncio.subprocess.Process
    folder: Path
    channel: aio.Channel
    health_channel: aio.Channel

    @property
    def target(self) -> str:
        """The address of the service."""
        return _address(self.folder, "main")

    @property
    def stub(self) -> Any:
        """A stub whose channel retries nothing by itself."""
        return service_pb2_grpc.ModelRouterServiceStub(self.channel)

    @property
    def stats(self) -> psutil.Process:
        """The process as the operating system sees it."""
        return psutil.Process(self.process.pid)

    @property
    def stdout(self) -> str:
        """What it has printed."""
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """What it has logged."""
        return (self.folder / "stderr").read_text()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def exit_code(self, within: float) -> int:
        """Wait for its end."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    async def health(self, name: str) -> str:
        """Return the state of ``name`` on the health port."""
        answer = await self.health_stub.Check(health_pb2.HealthCheckRequest(service=name))
        return _state(answer)

    async def watch(self, name: str) -> AsyncGenerator[str, None]:
        """Yield the states of ``name`` on the health port."""
        async for answer in self.health_stub.Watch(health_pb2.HealthCheckRequest(service=name)):
            yield _state(answer)

    @property
    def health_stub(self) -> Any:
        """A stub of the health port."""
        return health_pb2_grpc.HealthStub(self.health_channel)


@asynccontextmanager
async def served(
    folder: Path, parts: str, *, server: str = "", env: Mapping[str, str] | None = None
) -> AsyncIterator[ServerProcess]:
    """Serve in a new process until the context ends.

    Args:
        folder: empty; its path is short, since sockets are in it.
        parts: the configuration but for its ``server``.
        server: further keys of that, one per line; HTTP is served only if they say so.
        env: added to this process's environment.
    """
    config = folder / "router.yaml"
    config.write_text(_configuration(folder, parts, server))
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "router_server", "serve", "--config", str(config)),
            env={**os.environ, **(env or {})},
            stdout=stdout,
            stderr=stderr,
        )
    try:
        async with (
            aio.insecure_channel(_address(folder, "main"), options=[("grpc.enable_retries", 0)]) as channel,
            aio.insecure_channel(_address(folder, "health")) as health_channel,
        ):
            started = ServerProcess(process, folder, channel, health_channel)
            await _until_ready(started)
            yield started
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        must_not_show("a server's output", *((folder / name).read_bytes() for name in ("stdout", "stderr")))


async def _until_ready(server: ServerProcess) -> None:
    ended = asyncio.create_task(server.process.wait())
    ready = asyncio.create_task(_ready(server))
    done, pending = await asyncio.wait({ended, ready}, timeout=_START, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.wait({ended, ready})
    assert ready in done, f"the server did not start:\n{server.stderr}"
    await ready


async def _ready(server: ServerProcess) -> None:
    request = health_pb2.HealthCheckRequest(service="readiness")
    watch = server.health_stub.Watch(request, wait_for_ready=True)
    async for answer in watch:
        if _state(answer) == "SERVING":
            break
    watch.cancel()


def _configuration(folder: Path, parts: str, server: str) -> str:
    addresses = [f"listen: {_address(folder, 'main')}", f"health_listen: {_address(folder, 'health')}"]
    http = [] if "http_listen" in server else ["http_listen: null"]
    keys = "\n".join([*addresses, *http, dedent(server)])
    return f"server:\n{indent(keys, '  ')}\n{dedent(parts)}"


def _address(folder: Path, name: str) -> str:
    return f"unix:{folder}/{name}"


def _state(answer: Any) -> str:
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
