"""What an upstream sends, handed on the moment that it is here, with no task to be waked for it.

A task that waits for each token is a future, a turn of the loop and a dozen frames to go up and down again.
Between a connection and aiohttp's protocol the tap sees every byte come, and takes what that made of them.
Refuses to know what the bytes mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import aiohttp

READ_BYTES: Final = 64 * 1024
"""Of a stream at once: what an upstream sent in one burst must not all be held twice by a slow reader."""


class Tap(asyncio.Protocol):
    """Takes the place of a connection's protocol, which goes on to do its work behind it.

    Args:
        transport: of the connection.
        protocol: aiohttp's.
        content: what that makes of the body.
        take: is given what has come; tells whether it takes more.
        most: bytes that it is given at once.

    Attributes:
        closed: done once the body is over or broke off, or no more is taken, which makes it true.
        error: what ``take`` raised. Whoever raises it forgets it here, since it knows this tap.
    """

    __slots__ = ("_content", "_most", "_protocol", "_take", "_transport", "closed", "error")

    def __init__(
        self,
        transport: asyncio.Transport,
        protocol: asyncio.Protocol,
        content: aiohttp.StreamReader,
        take: Callable[[bytes], bool],
        most: int,
    ) -> None:
        self.closed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.error: Exception | None = None
        self._transport = transport
        self._protocol = protocol
        self._content = content
        self._most = most
        self._take: Callable[[bytes], bool] | None = take
        transport.set_protocol(self)
        self._pass_on()

    def close(self, *, refused: bool = False) -> None:
        """Give aiohttp's protocol its place again; may be repeated."""
        if self._take is not None:
            # What is raised behind the tap knows its frames; what it is taken by must not live as long.
            self._take = None
            self._transport.set_protocol(self._protocol)
        if not self.closed.done():
            self.closed.set_result(refused)

    def data_received(self, data: bytes) -> None:
        """Bytes are here."""
        self._protocol.data_received(data)
        self._pass_on()

    def eof_received(self) -> bool | None:
        """The upstream sends no more."""
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, which is how some bodies end."""
        self._protocol.connection_lost(exc)
        self._pass_on()
        self.close()

    def pause_writing(self) -> None:
        """The upstream does not read."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The upstream reads again."""
        self._protocol.resume_writing()

    def _pass_on(self) -> None:
        content, refused = self._content, False
        try:
            # An exception of the content's is not raised here: it would keep this frame, and all that this
            # knows, until the garbage collector came by.
            while (take := self._take) is not None and content.exception() is None:
                data = content.read_nowait(self._most)
                if data and not take(data):
                    refused = True
                    break
                if len(data) < self._most:  # that was all
                    if not content.is_eof():
                        return
                    break
        except Exception as error:  # noqa: BLE001 - whoever waits gets it, and raises it where it is seen
            self.error = error
        self.close(refused=refused)
