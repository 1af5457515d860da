"""Keys that the command writes into Redis, and servers that follow without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from grpc import aio

from router_server.cli import main
from tests.e2e.serving import Served, chat, failure_of, serving
from tests.e2e.test_auth import MOCK, bearer, refused
from tests.state.servers import SharedServer, shared_server


@pytest.fixture
def server() -> Iterator[SharedServer]:
    with TemporaryDirectory(prefix="mr") as folder, shared_server(Path(folder)) as running:
        yield running


async def is_known(served: Served, key: str) -> bool:
    try:
        await served.stub.Chat(chat(), metadata=bearer(key))
    except aio.AioRpcError as error:
        if failure_of(error).reason == "UNAUTHENTICATED":
            return False
        raise
    return True


async def becomes(served: Served, key: str, *, known: bool) -> None:
    async with asyncio.timeout(20):
        while await is_known(served, key) is not known:
            pass


async def test_two_servers_follow_what_is_done_to_keys(
    tmp_path: Path, server: SharedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"redis: {server.url}\nauth: {{api_keys: redis}}\n{MOCK}"
    file = tmp_path / "router.yaml"
    file.write_text(text)

    async def keys(*arguments: str) -> str:
        """Run the command, and return the key that it shows, if it does."""
        assert await asyncio.to_thread(main, ["keys", *arguments, "--config", str(file)]) == 0
        lines = capsys.readouterr().out.split()
        return next((word for word in lines if word.startswith("mr-")), "")

    async with serving(text) as one, serving(text) as other:
        key = await keys("add", "search", "--routes", "chat")
        for served in (one, other):
            await becomes(served, key, known=True)
            assert (await refused(served, *bearer(key), model="other")).reason == "PERMISSION_DENIED"
        new = await keys("rotate", "search", "--overlap", "0s")
        for served in (one, other):
            await becomes(served, new, known=True)
            assert not await is_known(served, key)
        server.kill()
        assert await is_known(one, new), "what was known stays while Redis is gone"
        server.start()
        last = await keys("add", "after")
        await becomes(one, last, known=True)
        assert not await is_known(one, new), "it came back empty: whoever is in it is known, and nobody else"
        await keys("revoke", "after")
        await becomes(one, last, known=False)
