from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from router_server.state.memory import MemoryStore
from router_server.state.store import Store
from tests.state.servers import SharedServer, connected, shared_server


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, since sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="mr") as path:
        yield Path(path)


@pytest.fixture
def server(folder: Path) -> Iterator[SharedServer]:
    with shared_server(folder) as running:
        yield running


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Either store: both do the same."""
    if request.param == "memory":
        yield MemoryStore()
        return
    server: SharedServer = request.getfixturevalue("server")
    async with connected(server.url) as remote:
        yield remote
