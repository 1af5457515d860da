"""One answer of an upstream while it is being read.

Bounded reads of a body, decompressed on the way, and an end that takes effect at once. Refuses to know
what was asked, and what the body means.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

from router_server.core.errors import Outcome, UpstreamError
from router_server.providers._direct import DirectResponse
from router_server.providers._failure import transport_failure
from router_server.providers._tap import READ_BYTES, Tap

_FAREWELL_SECONDS: Final = 0.1
"""How long the end of a body may lag behind the end of its content before the connection is given up: the
two usually come in one packet, or in two that follow each other."""


class AbruptResponse(aiohttp.ClientResponse):
    """A response whose connection ends the moment that it is given up, with headers or still without.

    A graceful close would first flush what the upstream does not read, or shut TLS down.
    """

    def close(self) -> None:
        """Drop the connection, unless the whole body has arrived and it is back in the pool."""
        connection = self.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        super().close()


class Exchange:
    """One answer whose headers have arrived.

    Whoever has it closes it. Closing gives the connection back to the pool if the whole body was read,
    and otherwise drops it at once, without saying goodbye.
    """

    __slots__ = ("_open", "_response")

    def __init__(self, response: aiohttp.ClientResponse | DirectResponse, still_open: set[Exchange]) -> None:
        self._response = response
        self._open = still_open
        still_open.add(self)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names are compared without regard to case."""
        return self._response.headers

    @property
    def is_json(self) -> bool:
        """Whether the body calls itself one JSON document."""
        return self._response.content_type == "application/json"

    async def read(self) -> bytes:
        """Return what has arrived since the last read, 64 KiB at most, waiting for it; b"" at the end.

        Raises:
            UpstreamError: the body broke off, or its compression is broken.
        """
        return await self._next(READ_BYTES)

    async def pour(self, take: Callable[[bytes], bool], most: int = READ_BYTES) -> bool:
        """Give ``take`` what arrives, ``most`` bytes at once, the moment that it does, while it takes more.

        Returns:
            True: it takes no more. False: nothing more comes this way; how the body ended, `read` tells.

        Raises:
            Exception: what ``take`` raised.
        """
        content, connection = self._response.content, self._response.connection
        if content.is_eof() and content.exception() is None:
            return _pour_out(content, take, most)
        if connection is None or connection.transport is None or connection.protocol is None:
            return False
        if connection.transport.is_closing():
            # Over TLS the news is on its way to whose place the tap would take, and would never reach it.
            await _lost(connection.protocol)
            return False
        tap = Tap(connection.transport, connection.protocol, content, take, most)
        try:
            await tap.closed
        finally:
            tap.close()
            error, tap.error = tap.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        return tap.closed.result()

    async def read_all(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            UpstreamError: as `read`; MALFORMED, ``body_too_large`` beyond ``limit`` bytes.
        """
        body = await self.read_some(limit + 1)
        if len(body) > limit:
            raise UpstreamError(Outcome.MALFORMED, "body_too_large", status=self.status)
        return body

    async def read_some(self, limit: int) -> bytes:
        """Return the body, or its first ``limit`` bytes where it is longer.

        Raises:
            UpstreamError: as `read`.
        """
        # Buffers are taken as they are: cut to 64 KiB, 64 vectors of 1,536 numbers were copied once more.
        chunks: list[bytes] = []
        left = limit
        while left > 0 and (chunk := await self._next(limit)):
            chunks.append(chunk)
            left -= len(chunk)
            if self._response.content.at_eof():
                break
        return b"".join(chunks)[:limit]

    async def read_farewell(self) -> None:
        """After the last of the content: let the body end, so that the connection can be used again.

        Waits 0.1 s at most, and takes no notice of anything that goes wrong.
        """
        if self._response.content.at_eof():
            return
        with contextlib.suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                while await self.read():
                    pass

    def close(self) -> None:
        """End the exchange; harmless when repeated. A read that waits in another task fails as ``closed``."""
        self._response.close()
        self._open.discard(self)

    async def _next(self, most: int) -> bytes:
        content = self._response.content
        try:
            while not (chunk := content.read_nowait(most)) and not content.at_eof():
                if chunk := await self._awaited(most):
                    break
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise self._broken(error) from None
        return chunk

    async def _awaited(self, most: int) -> bytes:
        """Return what comes next. Poured, since nobody tells a read that waits that what came is no HTTP."""
        taken: list[bytes] = []

        def take(chunk: bytes) -> bool:
            taken.append(chunk)
            return False

        return taken[0] if await self.pour(take, most) else await self._response.content.read(most)

    def _broken(self, error: Exception) -> Exception:
        """Return what it means that a read failed: also where aiohttp ended the connection over what it read.

        It then says nothing to whoever reads the body, and calls the next read a mistake.
        """
        if not isinstance(error, RuntimeError):
            return transport_failure(error)
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            return error
        return UpstreamError(Outcome.MALFORMED, "bad_http")


def _pour_out(content: aiohttp.StreamReader, take: Callable[[bytes], bool], most: int) -> bool:
    """Pour what is left of a body that is here; a tap would take two calls of the system, to poll anew."""
    while data := content.read_nowait(most):
        if not take(data):
            return True
    return False


async def _lost(protocol: ResponseHandler) -> None:
    """Wait until ``protocol``, whose connection is closing, knows that it is gone."""
    closed = protocol.closed
    if closed is None:
        return
    closed.add_done_callback(asyncio.Future.exception)  # or it would be logged that nobody looked at it
    await asyncio.wait({closed})
