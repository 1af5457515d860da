"""Clients of the subjects, ready to ask."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bench.rig.asking import Client, Sink
from bench.rig.h1 import Pool
from bench.rig.h2 import Connection
from bench.rig.load import Target


class Channels:
    """gRPC connections that take requests by turns."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections
        self._turns = itertools.cycle(connections)

    def ask(self, body: bytes, sink: Sink) -> None:
        """Send a request."""
        next(self._turns).ask(body, sink)

    def close(self) -> None:
        """Drop every connection."""
        for connection in self._connections:
            connection.close()


@asynccontextmanager
async def client(target: Target, at_once: int, connections: int = 8) -> AsyncIterator[Client]:
    """Connect, and disconnect when the context ends.

    Args:
        target: whom to ask.
        at_once: the most requests at once; HTTP/1.1 needs as many connections.
        connections: of HTTP/2.
    """
    host, _, path = target.url.removeprefix("http://").partition("/")
    port = int(host.rpartition(":")[2])
    made: Client
    if target.http1:
        made = pool = Pool(port, f"/{path}", target.headers)
        await pool.prepare(at_once)
    else:
        loop = asyncio.get_running_loop()
        opened = [
            await loop.create_connection(lambda: Connection(f"/{path}", host), "127.0.0.1", port)
            for _ in range(min(connections, at_once))
        ]
        made = Channels([connection for _, connection in opened])
    try:
        yield made
    finally:
        made.close()
