"""A client for thousands of gRPC streams on one core, which the real ones are too slow for.

It speaks as much HTTP/2 as a gRPC server needs to be asked, and gives the bytes of every answer to its sink
the moment they are here. Refuses to know what they mean.
"""

from __future__ import annotations

import asyncio
import struct
from itertools import starmap
from typing import Any, Final, cast

from hpack import Decoder, Encoder, NeverIndexedHeaderTuple

from bench.rig.asking import Sink

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW: Final = 2**31 - 1
_DEFAULT_WINDOW: Final = 65_535
_HEAD: Final = struct.Struct(">HBBBL")  # the length's upper 16 bits and lower 8, type, flags, stream
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 0x1
_END_HEADERS: Final = 0x4
_PADDED, _PRIORITY = 0x8, 0x20
_INITIAL_WINDOW_SIZE: Final = 4
_LARGEST_FRAME: Final = 16_384


class Connection(asyncio.Protocol):
    """One connection to a gRPC server.

    Args:
        path: of the method.
        authority: host and port.
    """

    def __init__(self, path: str, authority: str) -> None:
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": authority}
        fields |= {"te": "trailers", "content-type": "application/grpc"}
        # Never indexed, so that one block is right for every request.
        self._headers = Encoder().encode(list(starmap(NeverIndexedHeaderTuple, fields.items())))
        self._decoder = Decoder()
        self._sinks: dict[int, Sink] = {}
        self._next = 1
        self._rest = b""
        self._received = 0
        self._transport: asyncio.Transport

    def ask(self, body: bytes, sink: Sink) -> int:
        """Send a request and return its stream."""
        stream, self._next = self._next, self._next + 2
        self._sinks[stream] = sink
        frames = [_frame(_HEADERS, _END_HEADERS, stream, self._headers)]
        for start in range(0, len(body), _LARGEST_FRAME):
            part = body[start : start + _LARGEST_FRAME]
            last = start + _LARGEST_FRAME >= len(body)
            frames.append(_frame(_DATA, _END_STREAM if last else 0, stream, part))
        self._transport.write(b"".join(frames))
        return stream

    def cancel(self, stream: int) -> None:
        """Give an answer up."""
        if self._sinks.pop(stream, None) is not None:
            self._transport.write(_frame(_RESET, 0, stream, struct.pack(">L", 8)))

    def close(self) -> None:
        """Close the connection."""
        self._sinks.clear()
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello, and that answers of any size may come."""
        self._transport = cast("asyncio.Transport", transport)
        settings = struct.pack(">HL", _INITIAL_WINDOW_SIZE, _WINDOW)
        self._transport.write(
            _PREFACE + _frame(_SETTINGS, 0, 0, settings) + _window(_WINDOW - _DEFAULT_WINDOW)
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """End every answer."""
        sinks, self._sinks = self._sinks, {}
        for sink in sinks.values():
            sink.end(f"connection lost: {exc}")

    def data_received(self, data: bytes) -> None:
        """Take apart what has come."""
        buffer = self._rest + data if self._rest else data
        at, size = 0, len(buffer)
        while size - at >= _HEAD.size:
            upper, lower, kind, flags, stream = _HEAD.unpack_from(buffer, at)
            end = at + _HEAD.size + (upper << 8 | lower)
            if end > size:
                break
            self._take(kind, flags, stream, buffer[at + _HEAD.size : end])
            at = end
        self._rest = buffer[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._received += len(payload)
            if self._received > _WINDOW // 2:
                self._transport.write(_window(self._received))
                self._received = 0
            sink = self._sinks.get(stream)
            if sink is not None:
                sink.data(payload)
        elif kind == _HEADERS:
            self._take_headers(flags, stream, payload)
        elif kind == _RESET:
            self._end(stream, "reset")
        elif kind in {_SETTINGS, _PING} and not flags & _ACK:
            self._transport.write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _GOAWAY:
            self._transport.close()

    def _take_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & _PADDED or flags & _PRIORITY or not flags & _END_HEADERS:
            raise NotImplementedError("no gRPC server sends padded, weighted or continued headers")
        fields: dict[Any, Any] = dict(self._decoder.decode(payload))
        if flags & _END_STREAM:
            status = fields.get("grpc-status")
            self._end(stream, None if status == "0" else f"{status}: {fields.get('grpc-message')}")

    def _end(self, stream: int, error: str | None) -> None:
        sink = self._sinks.pop(stream, None)
        if sink is not None:
            sink.end(error)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def _window(size: int) -> bytes:
    return _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">L", size))
