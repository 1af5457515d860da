"""HTTP/2 by hand: a client that says what no gRPC library would, on the server's socket."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from hyperframe.frame import Frame

Headers = Iterable[tuple[bytes, bytes]]

SERVICE = b"/modelrouter.v1.ModelRouterService/"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_SETTINGS = bytes(3) + b"\x04\x00" + bytes(4)


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    """Return a gRPC message as it stands in a stream."""
    return struct.pack(">BI", compressed, len(message)) + message


def call_headers(method: bytes, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Return the headers of an RPC."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", SERVICE + method),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    ]


class Wire:
    """One HTTP/2 connection; `h2` keeps its state, and is told to let everything through."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.state = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
            )
        )
        self.reader = reader
        self.writer = writer
        self.events: list[h2.events.Event] = []
        """What the server has said and nobody has looked at."""

    async def begin(self) -> Self:
        """Greet, and learn the server's settings."""
        self.state.initiate_connection()
        await self.flush()
        while not any(isinstance(event, h2.events.RemoteSettingsChanged) for event in self.events):
            assert await self.read(), "the server closed at once"
        return self

    async def flush(self) -> None:
        """Send what `h2` has ready."""
        self.writer.write(self.state.data_to_send())
        await self.writer.drain()

    async def send(self, data: bytes) -> bool:
        """Send bytes as they are; tell whether the server still takes any."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except (ConnectionError, RuntimeError):
            return False
        return not self.writer.is_closing()

    async def read(self) -> bool:
        """Take what the server says next; tell whether there was anything before the end."""
        try:
            data = await self.reader.read(65_536)
        except ConnectionError:
            return False
        if not data:
            return False
        try:
            self.events += self.state.receive_data(data)
        except h2.exceptions.ProtocolError:
            return True
        if answer := self.state.data_to_send():
            await self.send(answer)
        return True

    async def call(self, headers: Headers, body: bytes) -> int:
        """Begin an RPC and return its stream; bodies of any length go out as the server's window allows."""
        stream = self.state.get_next_available_stream_id()
        self.state.send_headers(stream, list(headers))
        while body:
            room = min(self.state.local_flow_control_window(stream), self.state.max_outbound_frame_size)
            if not room:
                await self.flush()
                if not await self.read():
                    break
                continue
            self.state.send_data(stream, body[:room])
            body = body[room:]
        self.state.end_stream(stream)
        await self.flush()
        return stream

    async def ending(self, stream: int) -> str:
        """Return how a stream ends: its ``grpc-status``, else an HTTP status, ``reset`` or ``closed``."""
        while True:
            for event in self.events:
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, h2.events.StreamReset):
                    return "reset"
                if isinstance(event, (h2.events.TrailersReceived, h2.events.ResponseReceived)):
                    headers = dict(event.headers or ())
                    if b"grpc-status" in headers:
                        return headers[b"grpc-status"].decode()
                    if headers.get(b":status", b"200") != b"200":
                        return "http " + headers[b":status"].decode()
            if not await self.read():
                return "closed"

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """Yield what the server says, past `h2`: for streams that it was not told of."""
        while True:
            frame, length = Frame.parse_frame_header(memoryview(await self.reader.readexactly(9)))
            frame.parse_body(memoryview(await self.reader.readexactly(length)))
            yield frame

    async def closed(self) -> None:
        """Wait until the server has closed."""
        while await self.read():
            self.events.clear()


@asynccontextmanager
async def connected(target: str) -> AsyncIterator[Wire]:
    """Connect to ``unix:…``, saying nothing yet."""
    reader, writer = await asyncio.open_unix_connection(str(Path(target.removeprefix("unix:"))))
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()
