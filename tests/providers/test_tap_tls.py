"""A connection over TLS that ends in the very moment that a stream is to be handed over by it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from router_server.core.errors import Outcome, UpstreamError
from tests.client.certificates import Authority
from tests.providers.http_exchange import client_for
from tests.upstream import SSE_HEAD, End, Upstream, event


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what the server has, and what a client has that trusts it."""
    authority = Authority.create()
    signed = authority.sign("localhost")
    for name, content in (("ca", authority.pem), ("cert", signed.certificate), ("key", signed.key)):
        (folder / name).write_bytes(content)
    serves = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serves.load_cert_chain(folder / "cert", folder / "key")
    return serves, ssl.create_default_context(cafile=str(folder / "ca"))


async def _pour_as_it_ends(serves: ssl.SSLContext, trusts: ssl.SSLContext, end: End) -> UpstreamError:
    go = asyncio.Event()
    async with Upstream(tls=serves) as upstream:
        upstream.then((*SSE_HEAD, event("1"), go, end))
        client = client_for(upstream.base_url.replace("127.0.0.1", "localhost"))
        connector = client._session.connector
        assert connector is not None
        connector._ssl = trusts  # type: ignore[attr-defined]
        exchange = await client.open("/chat", b"{}", {}, 5.0)
        try:
            assert await exchange.read() == b"data: 1\n\n"
            [protocol] = connector._acquired
            transport = protocol.transport
            assert transport is not None
            go.set()
            while not transport.is_closing():  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0)
            assert await asyncio.wait_for(exchange.pour(lambda _data: True), 5) is False
            with pytest.raises(UpstreamError) as caught:
                await asyncio.wait_for(exchange.read(), 5)
            return caught.value
        finally:
            exchange.close()
            await client.close()


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_end_is_not_missed(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop], end: End
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        error = runner.run(_pour_as_it_ends(*contexts(tmp_path), end))
    assert error.outcome is Outcome.UNAVAILABLE
