"""The one way in which every HTTP provider talks to its upstream: a small client around aiohttp.

It adds what a router needs and aiohttp leaves open: every failure is an `UpstreamError`, bodies are
bounded also after decompression, nothing comes from the environment, and giving up closes the connection
at once. Refuses to know any API, and any timer but the one for connecting: the others are the core's.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Surroundings
from router_server.providers._direct import DirectPost
from router_server.providers._endpoint import Endpoint
from router_server.providers._exchange import AbruptResponse, Exchange
from router_server.providers._failure import (
    ErrorReader,
    capped,
    read_retry_after,
    status_failure,
    transport_failure,
)

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""A unary answer, decompressed: 2,048 vectors of 3,072 numbers as JSON text are about 60 MB."""

MAX_ERROR_BYTES: Final = 64 * 1024
"""As much of an error body as is read: what an error means stands at its beginning."""

_MAX_PATHS: Final = 256
"""Paths to which requests are kept ready: they may name models, and callers may name any."""

_LARGE_BYTES: Final = 1024 * 1024
"""Beyond this a body is not written in one go."""

_STREAM_AHEAD: Final = 256 * 1024
_BODY_AHEAD: Final = 1024 * 1024
"""Bytes; see `DirectPost.send`. Half a megabyte of vectors shall not stop the reading that is waited for."""

_JSON: Final = {"Content-Type": "application/json"}


class HttpClient:
    """The connections to one upstream.

    Made inside a running event loop; connects when first used.

    Args:
        endpoint: where the upstream listens.
        headers: sent with every request, the credentials among them; never shown.
        surroundings: the connection limit and the cap of Retry-After.
        read_error: reads this provider's error bodies.
        clock: seconds since the epoch, for a Retry-After that is a date.
    """

    __slots__ = (
        "_clock",
        "_connector",
        "_endpoint",
        "_headers",
        "_open",
        "_posts",
        "_read_error",
        "_retry_after_cap",
        "_session",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        headers: Mapping[str, str],
        surroundings: Surroundings,
        read_error: ErrorReader,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint
        self._read_error = read_error
        self._retry_after_cap = surroundings.retry_after_cap
        self._clock = clock
        self._posts: dict[str, DirectPost] = {}
        self._open: set[Exchange] = set()
        self._headers = {"Accept-Encoding": "gzip, deflate", "User-Agent": "modelrouter", **headers}
        self._connector = _connector(endpoint, surroundings.max_connections)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_timeout(None),
            response_class=AbruptResponse,
            trust_env=False,
        )

    @property
    def address(self) -> tuple[str, int | None]:
        """Host and port, or a unix socket's path and None."""
        return self._endpoint.address

    async def post(self, path: str, body: bytes, headers: Mapping[str, str], connect_timeout: float) -> bytes:
        """Send a JSON body and return the whole body of the answer, decompressed.

        Raises:
            UpstreamError: whatever went wrong, and for every status that is not 2xx.
        """
        exchange = await self.open(path, body, headers, connect_timeout, ahead=_BODY_AHEAD)
        try:
            return await exchange.read_all(MAX_BODY_BYTES)
        finally:
            exchange.close()

    async def open(
        self,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        connect_timeout: float,
        *,
        ahead: int = _STREAM_AHEAD,
    ) -> Exchange:
        """Send a JSON body and return the answer as soon as its headers are here; the caller closes it.

        About twice ``ahead`` bytes of the answer may wait to be read.

        Raises:
            UpstreamError: as `post`.
        """
        if len(body) > _LARGE_BYTES:
            # As a file aiohttp writes it by pieces, with turns for others between them.
            url, large = self._endpoint.url(path), {**_JSON, **headers}
            exchange = await self._send("POST", url, io.BytesIO(body), large, connect_timeout)
        else:
            exchange = await self._post(path, body, headers, connect_timeout, ahead)
        if not 200 <= exchange.status < 300:  # noqa: PLR2004 - the 2xx of HTTP
            raise await self._failure(exchange)
        return exchange

    async def status(self, path: str, *, beside: str = "") -> int:
        """Send a GET, throw its body away and return the status, whatever it is.

        Args:
            path: below the base; with ``beside``, below what is left of the base when it ends so.
            beside: the end of the base's path to be left out.

        Raises:
            UpstreamError: there was no answer.
        """
        status, _body = await self.get(path, beside=beside)
        return status

    async def get(self, path: str, *, beside: str = "") -> tuple[int, bytes]:
        """Send a GET and return the status, whatever it is, and the body, 64 MiB of it at most.

        Raises:
            UpstreamError: as `status`.
        """
        exchange = await self._send("GET", self._endpoint.url(path, beside=beside), None, {}, None)
        try:
            return exchange.status, await exchange.read_some(MAX_BODY_BYTES)
        finally:
            exchange.close()

    async def close(self) -> None:
        """Close every connection, also those in use: their readers see UNAVAILABLE, ``closed``."""
        for exchange in tuple(self._open):
            exchange.close()
        await self._session.close()

    async def _post(
        self, path: str, body: bytes, headers: Mapping[str, str], connect_timeout: float, ahead: int
    ) -> Exchange:
        if self._session.closed:
            raise UpstreamError(Outcome.UNAVAILABLE, "provider_closed")
        post = self._posts.get(path)
        if post is None:
            if len(self._posts) >= _MAX_PATHS:
                self._posts.clear()
            url = self._endpoint.url(path)
            post = self._posts[path] = DirectPost(self._connector, url, {**_JSON, **self._headers})
        try:
            return Exchange(await post.send(body, headers, _timeout(connect_timeout), ahead), self._open)
        except (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError) as error:
            raise transport_failure(error) from None

    async def _send(
        self,
        method: str,
        url: URL,
        body: io.BytesIO | None,
        headers: Mapping[str, str],
        connect_timeout: float | None,
    ) -> Exchange:
        if self._session.closed:
            raise UpstreamError(Outcome.UNAVAILABLE, "provider_closed")
        try:
            response = await self._session.request(
                method,
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=_timeout(connect_timeout),
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise transport_failure(error) from None
        return Exchange(response, self._open)

    async def _failure(self, exchange: Exchange) -> UpstreamError:
        """Read what the upstream says about a status; where it cannot be read, the status says enough."""
        try:
            body = await exchange.read_some(MAX_ERROR_BYTES)
        except UpstreamError:
            body = b""
        finally:
            exchange.close()
        verdict = self._read_error(exchange.status, body)
        wait = capped(verdict.retry_after, self._retry_after_cap)
        if wait is None:
            wait = read_retry_after(exchange.headers, self._retry_after_cap, self._clock)
        return status_failure(exchange.status, verdict, retry_after=wait)


def _connector(endpoint: Endpoint, max_connections: int) -> aiohttp.BaseConnector:
    # Two more than there can be calls: an active check, or a look at the load, must not wait behind them.
    limit = max_connections + 2
    if endpoint.socket:
        return aiohttp.UnixConnector(endpoint.socket, limit=limit)
    return aiohttp.TCPConnector(limit=limit)


@lru_cache(maxsize=64)
def _timeout(connect: float | None) -> aiohttp.ClientTimeout:
    # An infinite threshold: aiohttp otherwise rounds timeouts of more than 5 s up to whole seconds.
    return aiohttp.ClientTimeout(total=None, connect=connect, ceil_threshold=float("inf"))
