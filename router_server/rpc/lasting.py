"""A gRPC server that serves again after it ended by itself.

grpc.aio decodes the name of a method that it does not know as UTF-8, in the one task that takes calls in:
where the bytes are none, that task ends, and the server with it, while the process goes on. No interceptor
sees such a call and no option refuses it, so a server that was not told to stop is made anew, at the same
address. The calls that were running are lost.

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

_RETRY: Final = 0.1
"""Seconds between two tries to take the address again: the old server lets go of it a moment later."""


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
        self._stopping = False
        self._renewing: asyncio.Task[None] | None = None

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
        asyncio.ensure_future(self._server.wait_for_termination()).add_done_callback(self._ended)

    async def stop(self, grace: float | None) -> None:
        """Stop as `aio.Server.stop` does, for good."""
        self._stopping = True
        if self._renewing is not None:
            self._renewing.cancel()
        await self._server.stop(grace)

    def _ended(self, ending: asyncio.Future[bool]) -> None:
        if self._stopping or ending.cancelled():
            return
        _log.critical(
            "The server on %s ended by itself and is made anew; the calls that ran are lost.",
            self._address,
            exc_info=ending.exception(),
        )
        self._renewing = asyncio.create_task(self._serve_again(), name="serve again")

    async def _serve_again(self) -> None:
        server = self._build()
        while True:
            try:
                bind(server, self._address, self._credentials)
            except BindError as error:
                _log.critical("%s", error)
                await asyncio.sleep(_RETRY)
            else:
                break
        self._server = server
        await self.start()
