"""An HTTP/1.1 upstream of our own, on real sockets, that does exactly what a test tells it, byte by byte.

A reply is a tuple of steps, run in order once a whole request has been read:

- ``bytes``: sent as they are, in a packet of their own where the kernel lets them be one;
- ``asyncio.Event``: waits until the test sets it;
- ``End.CLOSE``: closes; ``End.RESET``: resets, so that the client sees ECONNRESET; ``End.STALL``: says
  nothing more and waits until the client closes.

A reply that names no end leaves the connection open for the next request. `json_reply`, `sse_reply` and
the pieces that they are made of (`head`, `chunk`, `event`, `LAST_CHUNK`) build replies; a function of
the `Request` is a reply too, and may yield its steps without end. A request that nothing was said about
gets status 500, and `Upstream.close` reports it.

    async with Upstream() as upstream:
        upstream.then(json_reply({"error": {}}, status=503))        # the first request
        upstream.then(SSE_HEAD + (event("{}"), End.RESET))          # the second
        upstream.always(json_reply({"choices": []}))                # all others
        upstream.on("/v1/models", json_reply({"data": []}))         # whatever else was said
        ... upstream.base_url ...
        assert upstream.requests[0].json["model"] == "m"
        await upstream.connections[0].closed.wait()                 # the client has closed
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


class End(Enum):
    """How a reply ends a connection."""

    CLOSE = auto()
    RESET = auto()
    STALL = auto()


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came over the wire; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> Mapping[str, list[str]]:
        """The query's values by name."""
        return parse_qs(urlsplit(self.target).query)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


Step = bytes | asyncio.Event | End
Steps = tuple[Step, ...]
Reply = Steps | Callable[[Request], Iterable[Step]]


def head(
    status: int = 200, headers: Mapping[str, str] | None = None, *, content_type: str = "application/json"
) -> bytes:
    """Return a status line and headers; the body's length is the caller's business."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}", f"Content-Type: {content_type}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def reply(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Steps:
    """Return a whole answer with a body of any kind."""
    return (head(status, {"Content-Length": str(len(body)), **(headers or {})}) + body,)


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Steps:
    """Return a whole JSON answer."""
    return reply(json.dumps(value).encode(), status, headers)


SSE_HEAD: Steps = (head(headers={"Transfer-Encoding": "chunked"}, content_type="text/event-stream"),)
"""The beginning of a chunked event stream."""

LAST_CHUNK = b"0\r\n\r\n"
"""The end of a chunked body."""


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(data: object) -> bytes:
    """Return one event as one chunk; a str is its data as it is, anything else is made JSON."""
    text = data if isinstance(data, str) else json.dumps(data)
    return chunk(f"data: {text}\n\n".encode())


def sse_reply(events: Iterable[object], *, done: bool = True) -> Steps:
    """Return a whole event stream, each event in a packet of its own, with a last ``[DONE]``."""
    return (*SSE_HEAD, *map(event, events), *((event("[DONE]"),) if done else ()), LAST_CHUNK)


@dataclass(eq=False)
class Connection:
    """One connection of a client; ``closed`` is set once the client has closed or reset it.

    ``answered`` counts the requests whose replies were sent to their ends.
    """

    closed: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[Request] = field(default_factory=list)
    answered: int = 0


class Upstream:
    """The server; see the module. ``path`` makes it listen on a unix socket, ``tls`` speaks TLS on TCP."""

    def __init__(self, path: Path | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.connections: list[Connection] = []
        self.unexpected: list[Request] = []
        self._path = path
        self._tls = tls
        self._queue: deque[Reply] = deque()
        self._by_path: dict[str, Reply] = {}
        self._always: Reply | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._changed = asyncio.Event()

    def then(self, *replies: Reply) -> Self:
        """Answer the next requests with ``replies``, one each."""
        self._queue.extend(replies)
        return self

    def always(self, what: Reply) -> Self:
        """Answer so whatever comes when the queue of `then` is empty."""
        self._always = what
        return self

    def on(self, path: str, what: Reply) -> Self:
        """Answer every request for ``path`` so."""
        self._by_path[path] = what
        return self

    async def requested(self, count: int = 1) -> Request:
        """Wait until ``count`` requests have been read in all, and return the last of them."""
        while len(self.requests) < count:
            self._changed.clear()
            await self._changed.wait()
        return self.requests[count - 1]

    @property
    def root_url(self) -> str:
        """``http://127.0.0.1:port``, or ``unix:///path``."""
        if self._path is not None:
            return f"unix://{self._path}"
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def base_url(self) -> str:
        """The root with ``/v1``, or ``unix:///path``."""
        return self.root_url if self._path is not None else f"{self.root_url}/v1"

    async def start(self) -> None:
        """Listen; on the same port again after `stop`."""
        loop = asyncio.get_running_loop()
        if self._path is not None:
            self._server = await loop.create_unix_server(self._protocol, str(self._path))
            return
        self._server = await loop.create_server(
            self._protocol, "127.0.0.1", self._port, ssl=self._tls, reuse_address=True
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection; the next client is refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # The connections' ends are told in the loop's next turn.
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop, and fail where a request came that nothing was said about."""
        await self.stop()
        assert not self.unexpected, f"no reply for {self.unexpected[0].method} {self.unexpected[0].target}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        connection = Connection()
        reader = asyncio.StreamReader()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._server is None:
                writer.transport.abort()
                return
            self.connections.append(connection)
            task = asyncio.get_running_loop().create_task(self._serve(connection, reader, writer))
            self._tasks.add(task)
            # Not in a ``finally`` of the task: it may be cancelled before its first step.
            task.add_done_callback(lambda _: writer.transport.abort())
            task.add_done_callback(self._tasks.discard)

        return _WatchedProtocol(connection.closed, reader, connected)

    async def _serve(
        self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while (request := await _read_request(reader)) is not None:
                connection.requests.append(request)
                self.requests.append(request)
                self._changed.set()
                if not await _run(self._steps_for(request), connection, writer):
                    return
                connection.answered += 1
        except (ConnectionError, asyncio.IncompleteReadError):
            connection.closed.set()

    def _steps_for(self, request: Request) -> Iterable[Step]:
        what = self._by_path.get(request.path)
        if what is None:
            what = self._queue.popleft() if self._queue else self._always
        if what is None:
            self.unexpected.append(request)
            return json_reply({"error": {"message": "nothing was said about this request"}}, 500)
        return what(request) if callable(what) else what


class _WatchedProtocol(asyncio.StreamReaderProtocol):
    """Tells when the client is gone, also while nobody reads."""

    def __init__(
        self,
        closed: asyncio.Event,
        reader: asyncio.StreamReader,
        connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None],
    ) -> None:
        super().__init__(reader, connected)
        self._client_closed = closed

    def eof_received(self) -> bool | None:
        self._client_closed.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client_closed.set()
        super().connection_lost(exc)


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    line = await reader.readline()
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while (line := await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        return Request(method, target, headers, await _read_chunked(reader))
    return Request(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))


async def _read_chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


async def _run(steps: Iterable[Step], connection: Connection, writer: asyncio.StreamWriter) -> bool:
    """Run a reply; return whether the connection may serve another request."""
    for step in steps:
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
            # The reader is in this same loop: give it the turns that it takes to read this packet alone.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        elif isinstance(step, asyncio.Event):
            await step.wait()
        else:
            await _end(step, connection, writer)
            return False
    return True


async def _end(end: End, connection: Connection, writer: asyncio.StreamWriter) -> None:
    if end is End.STALL:
        await connection.closed.wait()
    elif end is End.RESET:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()
        await writer.wait_closed()
