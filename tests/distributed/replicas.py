"""Router processes that share one Redis, each on an address of this machine that nobody else has."""

from __future__ import annotations

import asyncio
import inspect
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelrouter import AsyncClient
from modelrouter.v1 import service_pb2_grpc
from tests.secrecy import must_not_show

_START = 100.0
"""Seconds that a start may take, of three at once on a busy machine."""

_PORT = 50_051

_PATIENT = (
    "from router_server.core import shared; shared.CALL_PATIENCE = 10.0; "
    "from router_server.cli import main; raise SystemExit(main())"
)
"""A server that waits longer for the shared state than any call would: for what it counts, not how fast."""


@dataclass
class Replica:
    """One router process, which can be ended and started again where it was."""

    folder: Path
    address: str
    patient: bool = False
    process: asyncio.subprocess.Process | None = None
    channel: aio.Channel = field(init=False)

    def __post_init__(self) -> None:
        # A replica that was started again is to be found at once.
        options = [
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_reconnect_backoff_ms", 200),
        ]
        self.channel = aio.insecure_channel(self.address, options=options)

    @property
    def stub(self) -> Any:
        """A stub that retries nothing."""
        return service_pb2_grpc.ModelRouterServiceStub(self.channel)

    @property
    def log(self) -> str:
        """What it has logged, in all its lives."""
        return (self.folder / "stderr").read_text()

    async def start(self) -> None:
        """Start it; it may not be ready yet."""
        program = ("-c", _PATIENT) if self.patient else ("-m", "router_server")
        with (self.folder / "stderr").open("ab") as stderr:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, *program, "serve"),
                *("--config", str(self.folder / "router.yaml"), "--listen", self.address),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
            )

    async def ready(self) -> None:
        """Wait until it serves."""
        async with asyncio.timeout(_START):
            while not await self.serving("readiness"):
                assert self.process is not None
                assert self.process.returncode is None, self.log
                await asyncio.sleep(0.1)

    async def serving(self, name: str) -> bool:
        """Tell whether health says so of ``name``; not where nobody answers."""
        request = health_pb2.HealthCheckRequest(service=name)
        try:
            answer = await health_pb2_grpc.HealthStub(self.channel).Check(request, timeout=20)
        except aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        async with asyncio.timeout(_START):
            return await self.process.wait()

    async def restart(self) -> None:
        """Have it drain and leave, and start it anew."""
        assert await self.end(signal.SIGTERM) == 0, self.log
        await self.start()
        await self.ready()

    async def close(self) -> None:
        """End it, whatever it does."""
        await self.channel.close(None)
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        must_not_show("a replica's log", self.log.encode())


@asynccontextmanager
async def replicas(
    folder: Path, configuration: str, *, patient: bool = False
) -> AsyncIterator[list[Replica]]:
    """Run three processes with one configuration while the context lasts."""
    async with AsyncExitStack() as stack:
        some = [Replica(folder / f"replica-{number}", _own_address(), patient) for number in range(3)]
        for one in some:
            one.folder.mkdir()
            (one.folder / "router.yaml").write_text(dedent(configuration))
            stack.push_async_callback(one.close)
            await one.start()
        for one in some:
            await one.ready()
        yield some


def client_of(some: Sequence[Replica], **options: Any) -> AsyncClient:
    """Return the client that knows all of them, and asks each in turn."""
    return AsyncClient("ipv4:" + ",".join(one.address for one in some), timeout=40, **options)


async def until(true: Callable[[], Any]) -> None:
    """Wait until ``true`` returns something that is, or what it returns does."""
    async with asyncio.timeout(_START):
        while True:
            found = true()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.02)


def _own_address() -> str:
    # Of 16 million addresses that all mean this machine: no port has to be free twice, nor in other tests.
    numbers = [random.randint(1, 250) for _ in range(3)]  # noqa: S311 - nothing is secret
    return f"127.{numbers[0]}.{numbers[1]}.{numbers[2]}:{_PORT}"
