"""A client for many HTTP/1.1 answers at once: those of upstreams, and of gateways that speak no gRPC.

Refuses to know what the bytes mean; a body ends by its length, or by its last chunk.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Final, cast

from bench.rig.asking import Sink
from bench.rig.process import BenchError

_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d+)")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_HEAD_END: Final = b"\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"


class Pool:
    """As many connections as there are answers at once; `prepared` opens them ahead.

    Args:
        port: on this machine.
        path: of every request.
        headers: ``name: value``.
    """

    def __init__(self, port: int, path: str, headers: Sequence[str]) -> None:
        self._port = port
        lines = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{port}", *headers]
        self._head = "\r\n".join(lines).encode()
        self._idle: list[_Connection] = []
        self._all: list[_Connection] = []

    async def prepare(self, connections: int) -> None:
        """Open so many connections."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await loop.create_connection(
                lambda: _Connection(self._idle), "127.0.0.1", self._port
            )
            self._all.append(connection)
            self._idle.append(connection)

    def ask(self, body: bytes, sink: Sink) -> None:
        """Send a request on a connection that is idle.

        Raises:
            BenchError: there is none.
        """
        if not self._idle:
            raise BenchError(
                f"{len(self._all)} connections are not enough: answers are late, or connections lost"
            )
        self._idle.pop().send(b"%s\r\ncontent-length: %d\r\n\r\n%s" % (self._head, len(body), body), sink)

    def close(self) -> None:
        """Drop every connection."""
        for connection in self._all:
            connection.close()


class _Connection(asyncio.Protocol):
    def __init__(self, idle: list[_Connection]) -> None:
        self._idle = idle
        self._sink: Sink | None = None
        self._head = b""
        self._left: int | None = None
        self._tail = b""
        self._transport: asyncio.Transport

    def send(self, request: bytes, sink: Sink) -> None:
        self._sink, self._head, self._left, self._tail = sink, b"", None, b""
        self._transport.write(request)

    def close(self) -> None:
        self._sink = None
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"connection lost: {exc}")

    def data_received(self, data: bytes) -> None:
        if self._sink is None:
            return
        if not self._head.endswith(_HEAD_END):
            head, end, data = (self._head + data).partition(_HEAD_END)
            self._head = head + end
            if not end:
                return
            length = _LENGTH.search(self._head)
            self._left = int(length[1]) if length else None
        if data:
            self._sink.data(data)
        if self._left is not None:
            self._left -= len(data)
            over = self._left <= 0
        else:
            self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
            over = self._tail == _LAST_CHUNK
        if over:
            self._finish()

    def _finish(self) -> None:
        status = _STATUS.match(self._head)
        if status is not None and status[1] == b"200":
            self._idle.append(self)
            self._end(None)
        else:
            self._end(self._head.partition(b"\r\n")[0].decode())

    def _end(self, error: str | None) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.end(error)
