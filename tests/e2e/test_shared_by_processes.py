"""Server processes that share keys and limits in one Redis, and the command that makes a key for them."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
from grpc import aio

from modelrouter.v1 import service_pb2_grpc
from tests.e2e.serving import chat
from tests.secrecy import must_not_show
from tests.state.servers import shared_server

CONFIG = """
server: {{listen: "127.0.0.1:0", http_listen: null, workers: 2, drain_delay: 0s}}
redis: "{redis}"
auth: {{api_keys: redis}}
limits: {{caller: {{requests_per_minute: 5}}}}
providers: {{m: {{kind: mock}}}}
targets: {{t: {{provider: m, model: x}}}}
routes: {{chat: {{targets: [t]}}}}
"""
_START = 40.0
"""Seconds that a start may take on a busy machine."""


async def command(*arguments: str) -> str:
    """Run `router-server` to its end, and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "router_server", *arguments), stdout=asyncio.subprocess.PIPE
    )
    printed, _none = await process.communicate()
    assert process.returncode == 0
    return printed.decode().strip()


@asynccontextmanager
async def workers(config: Path, log: Path) -> AsyncIterator[str]:
    """Serve with several workers, and give their address."""
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "router_server", "serve", "--config", str(config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_START):
            while True:
                line = (await process.stdout.readline()).decode()
                assert line, "the server ended"
                if serving := re.match(r"Serving on (\S+):$", line):
                    break
        yield serving[1]
        process.terminate()
        await process.communicate()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def ask(address: str, key: str) -> str:
    """Ask over a connection of its own, which any of the workers may take, and return the code."""
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with aio.insecure_channel(address, options=options) as channel:
        stub = service_pb2_grpc.ModelRouterServiceStub(channel)
        try:
            await stub.Chat(chat(), metadata=(("x-api-key", key),), wait_for_ready=True, timeout=_START)
        except aio.AioRpcError as error:
            code: grpc.StatusCode = error.code()
            return code.name
        return "OK"


async def test_workers_share_keys_and_limits_behind_a_password() -> None:
    with TemporaryDirectory(prefix="mr") as name, shared_server(Path(name)) as server:
        folder = Path(name)
        server.lock("very-secret-word")
        config, log = folder / "router.yaml", folder / "log"
        config.write_text(CONFIG.format(redis=server.url.replace("unix://", "unix://:very-secret-word@")))
        key = await command("keys", "add", "a", "--config", str(config))
        async with workers(config, log) as address:
            codes = [await ask(address, key) for _ in range(20)]
            # Apart they would grant 5 each. Where the machine is so busy that the shared state answers late,
            # each may grant its part once by itself, which is 2.
            assert 5 <= codes.count("OK") <= 5 + 2 * 2
            assert set(codes) == {"OK", "RESOURCE_EXHAUSTED"}
            await command("keys", "revoke", "a", "--config", str(config))
            async with asyncio.timeout(_START):
                while await ask(address, key) != "UNAUTHENTICATED":
                    pass
        must_not_show("the log of the workers", log.read_bytes())
        assert key.encode() not in log.read_bytes()
