from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from router_server.http.server import Exposition, HttpServer, HttpStartError


async def metrics(accept: str) -> Exposition:
    return f"accept={accept}\n".encode(), "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def listening(*, ready: bool = True) -> AsyncIterator[str]:
    server = HttpServer(metrics, lambda: ready)
    port = await server.listen("127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.close()


@pytest.mark.parametrize(
    ("path", "ready", "status"),
    [
        ("/healthz", True, 200),
        ("/healthz", False, 200),
        ("/readyz", True, 200),
        ("/readyz", False, 503),
        ("/nothing", True, 404),
    ],
)
async def test_health_over_http(path: str, status: int, *, ready: bool) -> None:
    async with (
        listening(ready=ready) as url,
        aiohttp.ClientSession() as session,
        session.get(url + path) as response,
    ):
        assert response.status == status


async def test_metrics_come_as_the_accept_header_wants_them() -> None:
    async with (
        listening() as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/metrics", headers={"Accept": "text/plain"}) as response,
    ):
        assert await response.text() == "accept=text/plain\n"
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_a_taken_port_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = HttpServer(metrics, lambda: True)
        expected = rf"127\.0\.0\.1:{port}: address already in use.*http_listen"
        with pytest.raises(HttpStartError, match=expected):
            await server.listen("127.0.0.1", port)
        await server.close()


async def test_a_socket_file_serves_too(tmp_path: Path) -> None:
    server = HttpServer(metrics, lambda: True)
    await server.listen_on_socket(tmp_path / "s")
    connector = aiohttp.UnixConnector(str(tmp_path / "s"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://worker/healthz") as response,
    ):
        assert response.status == 200
    await server.close()
