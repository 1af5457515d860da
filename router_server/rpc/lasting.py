"""A gRPC server that serves again after it ended by itself.

grpc.aio decodes the name of a method that it does not know as UTF-8, in the one task that takes calls in:
where the bytes are none, that task ends, and with it the server, while the process goes on. No interceptor
sees such a call and no option refuses it. So a server that was not told to stop is replaced by a new one at
the same address, within a moment; calls that come in that moment are lost, those that the old one answers
go on to their end.

Refuses to know what is served.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import grpc
from grpc import aio

from router_server.rpc.binding import BindError, bind

_log = logging.getLogger(__name__)

_LOOK: Final = 0.1
"""Seconds between two looks at whether the server still takes calls: grpc.aio tells nobody of its end."""

_LONGEST: Final = 3_600.0
"""Seconds that the calls of a replaced server may take; the router's own deadlines end them before."""


class LastingServer:
    """Serves at one address until told to stop.

    Args:
        build: makes a server with everything in it but its address.
        address: where it listens.
    """

    def __init__(self, build: Callable[[], aio.Server], address: str) -> None:
        self._build = build
        self._address = address
        self._credentials: grpc.ServerCredentials | None = None
        self._server = build()
        self._ended: dict[asyncio.Task[None], aio.Server] = {}
        self._watching: asyncio.Task[None] | None = None

    def bind(self, credentials: grpc.ServerCredentials | None) -> int:
        """Take the address and return its port, 0 for a socket file; without credentials it is plaintext.

        Raises:
            BindError: the address cannot be had.
        """
        self._credentials = credentials
        port = bind(self._server, self._address, credentials)
        if port:
            self._address = f"{self._address.rpartition(':')[0]}:{port}"
        return port

    async def start(self) -> None:
        """Serve."""
        await self._server.start()
        self._watching = asyncio.create_task(self._watch(), name="watch the server")

    async def stop(self, grace: float | None) -> None:
        """Stop as `aio.Server.stop` does, for good."""
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.gather(*(server.stop(grace) for server in (self._server, *self._ended.values())))

    async def _watch(self) -> None:
        while True:
            if not await self._serves():
                await self._replace()

    async def _serves(self) -> bool:
        """Return after a while whether the server still takes calls."""
        try:
            return await self._server.wait_for_termination(timeout=_LOOK)
        except Exception:  # noqa: BLE001 - whatever ended it
            _log.critical("The server on %s ended by itself and is replaced.", self._address, exc_info=True)
            return False

    async def _replace(self) -> None:
        ending = asyncio.create_task(self._server.stop(_LONGEST), name="end of a replaced server")
        self._ended[ending] = self._server
        ending.add_done_callback(self._ended.pop)
        self._server = self._build()
        while True:
            try:
                bind(self._server, self._address, self._credentials)
            except BindError as error:
                _log.critical("%s", error)
                await asyncio.sleep(_LOOK)
            else:
                break
        await self._server.start()
