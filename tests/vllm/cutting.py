"""A proxy before a real vLLM that relays bytes, remembers them, and breaks an answer off where it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing resets the connection."""


@dataclass
class Exchange:
    """One request and its answer, as far as they went through."""

    asked: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)

    @property
    def said(self) -> str:
        """The text of all whole events of the answer."""
        return "".join(text for _, text in contents(self.answered))

    @property
    def continues(self) -> str | None:
        """The text that was to be continued; None where the request asked for a new answer."""
        body: dict[str, Any] = json.loads(self.asked.partition(b"\r\n\r\n")[2])
        if not body.get("continue_final_message"):
            return None
        text: str = body["messages"][-1]["content"]
        return text


@dataclass
class _Connection:
    exchange: Exchange | None = None
    """The call that is under way on it; requests for metrics and health are nobody's business here."""


@dataclass
class Proxy:
    """Listens on a port of its own, and relays to the unix socket ``upstream``.

    Attributes:
        cut_after: characters of an answer's text after which the connection is broken; None: never.
        surplus: bytes of the next event that still go through.
        reset: break by a reset, which also loses what the other side has not read; otherwise by an end.
        chat: the last call; None since `expect` where there was none.
    """

    upstream: Path
    cut_after: int | None = None
    surplus: int = 0
    reset: bool = False
    chat: Exchange | None = None
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def base_url(self) -> str:
        """The address, as the router's configuration has it."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def expect(self, *, cut_after: int | None = None, surplus: int = 0, reset: bool = False) -> None:
        """Begin anew."""
        self.chat = None
        self.cut_after, self.surplus, self.reset = cut_after, surplus, reset

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(str(self.upstream))
        connection = _Connection()
        asking = asyncio.create_task(self._ask(connection, reader, upstream_writer))
        try:
            await self._answer(connection, upstream_reader, writer)
        except ConnectionError:
            pass
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            upstream_writer.transport.abort()
            writer.transport.abort()

    async def _ask(
        self, connection: _Connection, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            if data.startswith(b"POST "):
                connection.exchange = self.chat = Exchange()
            elif data.startswith(b"GET "):
                connection.exchange = None
            if connection.exchange is not None:
                connection.exchange.asked += data
            upstream.write(data)
            await upstream.drain()
        upstream.transport.abort()

    async def _answer(
        self, connection: _Connection, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        over = False
        while not over and (data := await upstream.read(65536)):
            through, over = self._through(connection.exchange, data)
            writer.write(through)
            await writer.drain()
        if self.reset:
            broken: socket.socket = writer.get_extra_info("socket")
            broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def _through(self, exchange: Exchange | None, data: bytes) -> tuple[bytes, bool]:
        """Return what may go through of ``data``, and whether that was the last."""
        if exchange is None:
            return data, False
        before = len(exchange.answered)
        exchange.answered += data
        end = self._end(exchange)
        if end is not None:
            del exchange.answered[end:]
        return bytes(exchange.answered[before:]), end is not None

    def _end(self, exchange: Exchange) -> int | None:
        """Return the byte after which nothing goes through, once it has come."""
        if self.cut_after is None:
            return None
        length = 0
        for end, text in contents(exchange.answered):
            length += len(text)
            if length >= self.cut_after:
                return end + self.surplus if end + self.surplus <= len(exchange.answered) else None
        return None


def contents(answer: bytes | bytearray) -> list[tuple[int, str]]:
    """Return each whole event of a streamed answer that has text: the byte where it ends, and the text."""
    found: list[tuple[int, str]] = []
    end = 0
    for piece in answer.split(b"data: {")[1:]:
        end = answer.index(piece, end) + len(piece)
        event, ended, _ = bytes(piece).partition(b"\n\n")
        if ended and (text := _text(json.loads(b"{" + event))):
            found.append((end, text))
    return found


def _text(event: dict[str, Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in event["choices"])
