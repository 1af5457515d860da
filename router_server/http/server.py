"""The HTTP door for those who speak no gRPC: ``/metrics``, ``/healthz``, ``/readyz``.

Refuses to know what is measured and what makes a server ready: two functions tell.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

Exposition = tuple[bytes, str]
"""A body and its content type."""

Metrics = Callable[[str], Awaitable[Exposition]]
"""Gives the metrics as the Accept header wants them."""

_FAREWELL = 1.0
"""Seconds that an answer may still take when the server closes."""

_LAST_WORDS = 1.0
"""Seconds that a request has to end once the server stops; aiohttp would give it a minute."""


class HttpStartError(Exception):
    """The address cannot be had; the message names it and says what to do."""


class HttpServer:
    """Serves until closed.

    Args:
        metrics: what /metrics answers.
        ready: whether this server wants calls.
    """

    def __init__(self, metrics: Metrics, ready: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._ready = ready
        self._runner = web.AppRunner(
            self._app(), access_log=None, handle_signals=False, shutdown_timeout=_FAREWELL
        )

    async def listen(self, host: str, port: int) -> int:
        """Take a TCP address and serve; return the port, which was asked for or, for 0, was free.

        Raises:
            HttpStartError: it is taken, or not ours to take.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise HttpStartError(
                f"cannot serve HTTP on {host}:{port}: {os.strerror(error.errno or 0).lower()}; stop whoever "
                "listens there, or set server.http_listen (or --http-listen) to another address"
            ) from None
        bound: int = self._runner.addresses[0][1]
        return bound

    async def listen_on_socket(self, path: Path) -> None:
        """Serve on a Unix socket."""
        await self._runner.setup()
        await web.UnixSite(self._runner, str(path)).start()

    async def close(self) -> None:
        """Stop serving."""
        await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/healthz", self._get_health)
        app.router.add_get("/readyz", self._get_readiness)
        return app

    async def _get_metrics(self, request: web.Request) -> web.Response:
        body, content_type = await self._metrics(request.headers.get("Accept", ""))
        response = web.Response(body=body, headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    async def _get_health(self, _request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _get_readiness(self, _request: web.Request) -> web.Response:
        if self._ready():
            return web.Response(text="ready\n")
        return web.Response(text="not ready\n", status=503)
