"""The shared state behind TLS, and what the log says where it cannot be reached: never its password."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from router_server.state.opening import open_state
from tests.rpc.certificates import Authority, Pair
from tests.state.servers import SharedServer

SECRET = "very-secret-word"


@asynccontextmanager
async def tls_before(server: SharedServer, pair: Pair) -> AsyncIterator[int]:
    """Serve with TLS what ``server`` serves without, and give the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_unix_connection(server.url.removeprefix("unix://"))
        ways = [asyncio.create_task(pipe(reader, there[1])), asyncio.create_task(pipe(there[0], writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
        for end in (writer, there[1]):
            end.close()
            with suppress(OSError):
                await end.wait_closed()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def said_of(url: str, caplog: pytest.LogCaptureFixture) -> str:
    """Return what the log says of a state that cannot be used, or nothing where it can."""
    caplog.clear()
    state = open_state(url)
    await state.connect()
    if not state.degraded:
        assert await state.shared.put("a", b"1", 60)
    await state.close()
    assert SECRET not in caplog.text
    return caplog.text if state.degraded else ""


async def test_a_certificate_of_a_known_authority_is_trusted_and_no_other(
    server: SharedServer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority, stranger = Authority(folder, "ca"), Authority(folder, "stranger")
    server.lock(SECRET)
    async with tls_before(server, authority.issue("redis")) as port:
        url = f"rediss://:{SECRET}@127.0.0.1:{port}/0"
        assert await said_of(f"{url}?ssl_ca_certs={authority.cert}", caplog) == ""
        wrong = await said_of(f"{url}?ssl_ca_certs={stranger.cert}", caplog)
        assert "its certificate is not trusted: unable to get local issuer certificate" in wrong
        assert "?ssl_ca_certs=/path/to/ca.pem" in wrong
        assert "its certificate is not trusted" in await said_of(url, caplog), "the system's authorities"
        elsewhere = url.replace("127.0.0.1", "localhost")
        named = await said_of(f"{elsewhere}?ssl_ca_certs={authority.cert}", caplog)
        assert "Hostname mismatch" in named
        assert "does not exist" in await said_of(f"{url}?ssl_ca_certs={folder}/none.pem", caplog)


async def test_tls_where_none_is_spoken_is_named(
    server: SharedServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"-ERR what is that\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        assert "no TLS can be agreed on" in await said_of(f"rediss://127.0.0.1:{port}/0", caplog)
    server.lock(SECRET)
    assert "refuses the user or the password" in await said_of(server.url.replace("://", "://:no@"), caplog)
    server.kill()
    assert "nobody listens there" in await said_of(server.url, caplog)
