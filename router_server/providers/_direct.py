"""A POST over a connection of aiohttp's, without a session's work for each.

A session makes a request, a writer and a response anew for each exchange: 350,000 instructions for one that
is answered at once, of which 250,000 are saved here. What is alike in all requests to a path is made once,
by aiohttp's own request, and each request is written in one piece. Connections, their pool, names, TLS and
the parser of answers are aiohttp's. Refuses to know what an answer means, and to send large bodies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from yarl import URL

_CONTINUED: Final = range(100, 200)
"""Statuses after which another one follows; 101 is among them, since nobody asked to switch protocols."""


class DirectResponse:
    """An answer whose headers have arrived."""

    __slots__ = ("connection", "content", "headers", "status")

    def __init__(
        self, status: int, headers: Mapping[str, str], content: aiohttp.StreamReader, connection: Connection
    ) -> None:
        self.status = status
        self.headers = headers
        self.content = content
        self.connection: Connection | None = connection

    @property
    def content_type(self) -> str:
        """What the body calls itself, without parameters."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def close(self) -> None:
        """Give the connection back if the whole body has arrived, else drop it at once; may be repeated."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if self.content.is_eof():
            connection.release()
            return
        if self.content.exception() is None:
            self.content.set_exception(aiohttp.ClientConnectionError("Connection closed"))
        _abort(connection)


class _Alike(aiohttp.ClientRequest):
    """What all requests to one URL have in common. Which connections serve it is worked out once."""

    @cached_property
    def connection_key(self) -> ConnectionKey:
        return super().connection_key  # 5,000 instructions


class DirectPost:
    """Sends POST requests to one URL. Made inside the running event loop.

    Args:
        connector: has the connections.
        url: where to.
        headers: of every request.
    """

    __slots__ = ("_alike", "_connector", "_head")

    def __init__(self, connector: aiohttp.BaseConnector, url: URL, headers: Mapping[str, str]) -> None:
        self._connector = connector
        self._alike = _Alike("POST", url, headers=headers, loop=asyncio.get_running_loop())
        alike = {name: value for name, value in self._alike.headers.items() if name != "Content-Length"}
        self._head = f"POST {url.raw_path_qs} HTTP/1.1\r\n{_lines(alike)}"

    async def send(
        self, body: bytes, headers: Mapping[str, str], limits: aiohttp.ClientTimeout, ahead: int
    ) -> DirectResponse:
        """Send ``body`` and return the answer as soon as its headers are here; the caller closes it.

        Of the answer's body twice ``ahead`` bytes may wait to be read; then the connection is not read.

        Raises:
            TimeoutError: connecting took longer than ``limits`` allow; nothing else is limited.
            aiohttp.ClientError: there is no connection, or it broke.
            aiohttp.http_exceptions.HttpProcessingError: what came is no HTTP.
        """
        head = f"{self._head}{_lines(headers)}Content-Length: {len(body)}\r\n\r\n".encode()
        connection = await self._connector.connect(self._alike, [], limits)
        try:
            protocol, transport = _ends(connection)
            protocol.set_response_params(read_until_eof=True, read_bufsize=ahead)
            transport.write(head + body)
            while True:
                message, content = await protocol.read()
                if message.code not in _CONTINUED:
                    return DirectResponse(message.code, message.headers, content, connection)
        except BaseException:
            _abort(connection)
            raise


def _ends(connection: Connection) -> tuple[ResponseHandler, asyncio.Transport]:
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None:
        raise aiohttp.ServerDisconnectedError
    return protocol, transport


def _lines(headers: Mapping[str, str]) -> str:
    lines = ""
    for name, value in headers.items():
        if "\n" in value or "\r" in value or "\n" in name or "\r" in name:
            # Nothing that a caller says may become a header of its own.
            raise ValueError("a header has a line end in it")
        lines += f"{name}: {value}\r\n"
    return lines


def _abort(connection: Connection) -> None:
    """End a connection without saying goodbye: a graceful close would first flush what nobody reads."""
    if connection.transport is not None:
        connection.transport.abort()
    connection.close()
