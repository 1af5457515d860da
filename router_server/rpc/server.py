"""The gRPC servers: assembly, start, drain, stop.

Refuses to know signals, configuration files and what a call means.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from grpc import aio
from grpc_health.v1 import health_pb2_grpc

from modelrouter.v1.service_pb2_grpc import add_ModelRouterServiceServicer_to_server
from router_server.core.observer import RpcObserver
from router_server.core.principal import Authenticator
from router_server.core.service import CallRouter
from router_server.rpc.certificates import server_credentials
from router_server.rpc.delivery import Delivery
from router_server.rpc.guard import Guard
from router_server.rpc.health import HealthBoard, HealthService
from router_server.rpc.inflight import InFlight
from router_server.rpc.lasting import LastingServer
from router_server.rpc.reflection import add_reflection
from router_server.rpc.service import WRITTEN, ModelRouterService
from router_server.rpc.settings import ServerSettings, channel_options, health_options
from router_server.rpc.unregistered import Unregistered

_LAST_WORDS = 2.0
"""Seconds before the grace ends, in which what still runs is told so instead of being cut."""


_LULL = 1.0
"""Seconds that a stop waits, at most, for a moment in which no call arrives."""


class RpcServer:
    """The router's service on its port, and health on its own.

    Made and used inside one running event loop. `start` once, then `drain` or `stop` once.

    Args:
        settings: addresses, limits, TLS.
        router: answers the calls.
        health: what both ports read out.
        observer: sees every RPC.
        clock: monotonic seconds.
        authenticator: knows callers; None: whoever reaches the port may call.
    """

    def __init__(
        self,
        settings: ServerSettings,
        router: CallRouter,
        health: HealthBoard,
        observer: RpcObserver,
        clock: Callable[[], float] = time.monotonic,
        *,
        authenticator: Authenticator | None = None,
    ) -> None:
        self._settings = settings
        self._health = health
        self._inflight = InFlight()
        self._guard = Guard(observer, self._inflight, Delivery(settings.write_timeout), clock, authenticator)
        self._service = ModelRouterService(router, max_send_bytes=settings.max_send_bytes)
        add_to = partial(add_ModelRouterServiceServicer_to_server, self._service)
        self._methods = self._guard.around(add_to, WRITTEN)
        self._server = LastingServer(self._build, settings.listen)
        self._health_server: LastingServer | None = None
        self.port = 0
        """The bound port, once started; 0 for a socket file."""
        self.health_port = 0

    def know_callers_by(self, authenticator: Authenticator | None) -> None:
        """Ask ``authenticator`` who calls from now on; None: nobody is asked."""
        self._guard.authenticator = authenticator

    @property
    def inflight(self) -> int:
        """How many calls are being answered."""
        return len(self._inflight)

    async def start(self) -> None:
        """Take the addresses and serve. Readiness is not touched: whoever knows sets it.

        Raises:
            BindError: an address cannot be had.
            TlsError: certificate or key cannot be used.
        """
        tls = self._settings.tls
        credentials = None if tls is None else server_credentials(tls)
        self.port = self._server.bind(credentials)
        if self._settings.health_listen is not None:
            await self._start_health(self._settings.health_listen)
        await self._server.start()

    async def drain(self, delay: float, grace: float) -> None:
        """Leave without losing a call: return once nothing is in flight and no port is open.

        Args:
            delay: seconds in which calls are still taken while the world learns that this server leaves:
                ``stop`` refuses new connections at once, so it must not come first.
            grace: seconds after that for the calls that run. Shortly before they are over, what is left
                ends with STREAM_INTERRUPTED, unary calls too.
        """
        self._health.drain()
        await asyncio.sleep(delay)
        # A stop answers CANCELLED to what has arrived and not begun, of which few clients know that it may
        # be retried: with 50 calls a second that was one call in three stops, so it waits for a gap.
        await self._inflight.wait_for_lull(_LULL)
        stopping = asyncio.ensure_future(self._server.stop(grace))
        try:
            async with asyncio.timeout(grace - min(_LAST_WORDS, grace / 2)):
                await self._inflight.wait_until_empty()
        except TimeoutError:
            self._inflight.interrupt_all()
            await self._inflight.wait_until_empty()
        await self.stop()
        await stopping

    async def stop(self) -> None:
        """Cancel what runs, close the ports, and return once every call has ended. May interrupt a drain."""
        self._health.drain()
        # Also ends what is no call of ours and would last for ever: a Watch on the main port.
        await self._server.stop(None)
        await self._inflight.wait_until_empty()
        if self._health_server is not None:
            await self._health_server.stop(None)

    async def _start_health(self, address: str) -> None:
        server = LastingServer(self._build_health, address)
        self.health_port = server.bind(None)
        await server.start()
        self._health_server = server

    def _build(self) -> aio.Server:
        server = aio.server(options=channel_options(self._settings))
        server.add_generic_rpc_handlers((self._methods,))
        health_pb2_grpc.add_HealthServicer_to_server(HealthService(self._health), Unregistered(server))
        if self._settings.reflection:
            add_reflection(server)
        return server

    def _build_health(self) -> aio.Server:
        server = aio.server(options=health_options(self._settings))
        health_pb2_grpc.add_HealthServicer_to_server(HealthService(self._health), Unregistered(server))
        return server
