"""A client for thousands of gRPC streams on one core, which the real ones are too slow for.

It speaks as much HTTP/2 as a gRPC server needs to be asked, and gives the bytes of every answer to its sink
the moment they are here. Refuses to know what they mean.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from itertools import starmap
from typing import Any, Final, cast

from hpack import Decoder, Encoder, NeverIndexedHeaderTuple

from bench.rig.asking import Sink

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW: Final = 2**31 - 1
_DEFAULT_WINDOW: Final = 65_535
_HEAD: Final = struct.Struct(">HBBBL")  # the length's upper 16 bits and lower 8, type, flags, stream
_SETTING: Final = struct.Struct(">HL")
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 0x1
_END_HEADERS: Final = 0x4
_PADDED, _PRIORITY = 0x8, 0x20
_INITIAL_WINDOW_SIZE: Final = 4
_LARGEST_FRAME: Final = 16_384


@dataclass(slots=True)
class _Unsent:
    body: bytes
    window: int


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
        self._window = self._stream_window = _DEFAULT_WINDOW
        self._unsent: dict[int, _Unsent] = {}
        self._transport: asyncio.Transport

    def ask(self, body: bytes, sink: Sink) -> int:
        """Send a request and return its stream."""
        stream, self._next = self._next, self._next + 2
        self._sinks[stream] = sink
        self._transport.write(_frame(_HEADERS, _END_HEADERS, stream, self._headers))
        self._unsent[stream] = _Unsent(body, self._stream_window)
        self._send(stream)
        return stream

    def close(self) -> None:
        """Close the connection."""
        self._sinks.clear()
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello, and that answers of any size may come."""
        self._transport = cast("asyncio.Transport", transport)
        settings = _SETTING.pack(_INITIAL_WINDOW_SIZE, _WINDOW)
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
        elif kind == _WINDOW_UPDATE:
            self._take_window(stream, int.from_bytes(payload, "big"))
        elif kind == _SETTINGS and not flags & _ACK:
            self._take_settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            self._transport.close()

    def _take_settings(self, payload: bytes) -> None:
        for name, value in _SETTING.iter_unpack(payload):
            if name == _INITIAL_WINDOW_SIZE:
                for unsent in self._unsent.values():
                    unsent.window += value - self._stream_window
                self._stream_window = value
        self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        self._send_all()

    def _take_window(self, stream: int, more: int) -> None:
        if not stream:
            self._window += more
            self._send_all()
        elif stream in self._unsent:
            self._unsent[stream].window += more
            self._send(stream)

    def _send_all(self) -> None:
        for stream in list(self._unsent):
            self._send(stream)

    def _send(self, stream: int) -> None:
        """Send of a body what the server takes now."""
        unsent = self._unsent[stream]
        while (size := min(len(unsent.body), unsent.window, self._window, _LARGEST_FRAME)) > 0:
            part, unsent.body = unsent.body[:size], unsent.body[size:]
            unsent.window -= size
            self._window -= size
            self._transport.write(_frame(_DATA, 0 if unsent.body else _END_STREAM, stream, part))
            if not unsent.body:
                del self._unsent[stream]
                return

    def _take_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & _PADDED or flags & _PRIORITY or not flags & _END_HEADERS:
            raise NotImplementedError("no gRPC server sends padded, weighted or continued headers")
        fields: dict[Any, Any] = dict(self._decoder.decode(payload))
        if flags & _END_STREAM:
            status = fields.get("grpc-status")
            self._end(stream, None if status == "0" else f"{status}: {fields.get('grpc-message')}")

    def _end(self, stream: int, error: str | None) -> None:
        self._unsent.pop(stream, None)
        sink = self._sinks.pop(stream, None)
        if sink is not None:
            sink.end(error)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def _window(size: int) -> bytes:
    return _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">L", size))
