"""What a stream's body brings is handed on as it comes, and the connection is as good as before."""

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest

from router_server.core.errors import Outcome, UpstreamError
from router_server.providers._exchange import Exchange
from router_server.providers._http import HttpClient
from tests.providers.http_exchange import post
from tests.upstream import LAST_CHUNK, SSE_HEAD, End, Upstream, event, head, json_reply


class Taken:
    """Takes what comes, until it has taken so many."""

    def __init__(self, most: int = 1_000) -> None:
        self.data: list[bytes] = []
        self.came = asyncio.Event()
        self._most = most

    def __call__(self, data: bytes) -> bool:
        self.data.append(data)
        self.came.set()
        return len(self.data) < self._most


async def opened(client: HttpClient) -> Exchange:
    return await client.open("/chat", b"{}", {}, 5.0)


async def test_what_comes_is_handed_on_to_the_end_and_the_connection_serves_again(
    upstream: Upstream, client: HttpClient
) -> None:
    go = asyncio.Event()
    upstream.then((*SSE_HEAD, event("1"), go, event("2"), LAST_CHUNK), json_reply({}))
    exchange, taken = await opened(client), Taken()
    pouring = asyncio.create_task(exchange.pour(taken))
    await taken.came.wait()
    assert taken.data == [b"data: 1\n\n"]
    go.set()
    assert await pouring is False
    assert b"".join(taken.data) == b"data: 1\n\ndata: 2\n\n"
    assert await exchange.read() == b""
    exchange.close()
    await post(client)
    assert len(upstream.connections) == 1


async def test_what_is_refused_stays_for_the_next_read(upstream: Upstream, client: HttpClient) -> None:
    upstream.then((*SSE_HEAD, event("x" * 200_000), LAST_CHUNK))
    exchange, taken = await opened(client), Taken(most=1)
    assert await exchange.pour(taken) is True
    rest = b"".join([data async for data in _reads(exchange)])
    assert b"".join(taken.data) + rest == b"data: " + b"x" * 200_000 + b"\n\n"
    exchange.close()


async def _reads(exchange: Exchange) -> AsyncIterator[bytes]:
    while data := await exchange.read():
        yield data


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
async def test_a_body_that_breaks_off_is_told_by_the_next_read(
    upstream: Upstream, client: HttpClient, end: End
) -> None:
    upstream.then((*SSE_HEAD, event("1"), end))
    exchange, taken = await opened(client), Taken()
    assert await exchange.pour(taken) is False
    with pytest.raises(UpstreamError) as caught:
        await exchange.read()
    assert caught.value.outcome is Outcome.UNAVAILABLE
    exchange.close()
    upstream.always(json_reply({}))
    assert await post(client) == b"{}"


async def test_a_body_that_ends_with_its_connection(upstream: Upstream, client: HttpClient) -> None:
    upstream.then((head(), b"data: 1\n\n", b"data: 2\n\n", End.CLOSE))
    exchange, taken = await opened(client), Taken()
    assert await exchange.pour(taken) is False
    assert b"".join(taken.data) == b"data: 1\n\ndata: 2\n\n"
    assert await exchange.read() == b""
    exchange.close()


async def test_a_compressed_body_of_any_size(upstream: Upstream, client: HttpClient) -> None:
    body = b"data: " + b"x" * 3_000_000 + b"\n\n"
    packed = gzip.compress(body)
    upstream.then((head(headers={"Content-Encoding": "gzip", "Content-Length": str(len(packed))}), packed))
    exchange, taken = await opened(client), Taken()
    assert await exchange.pour(taken) is False
    assert b"".join(taken.data) == body
    exchange.close()


async def test_what_the_taker_raises_is_raised(upstream: Upstream, client: HttpClient) -> None:
    def fail(_data: bytes) -> bool:
        raise UpstreamError(Outcome.MALFORMED, "mine")

    upstream.then((*SSE_HEAD, event("1"), event("2"), End.STALL))
    exchange = await opened(client)
    with pytest.raises(UpstreamError, match="mine"):
        await exchange.pour(fail)
    exchange.close()
    await asyncio.wait_for(upstream.connections[0].closed.wait(), 5)


@pytest.mark.parametrize("turns", [0, 1, 5])
async def test_what_broke_while_nobody_read(upstream: Upstream, client: HttpClient, turns: int) -> None:
    go = asyncio.Event()
    upstream.then((*SSE_HEAD, event("1"), go, event("2") + b"no size\r\n", End.STALL))
    exchange, taken = await opened(client), Taken()
    assert await exchange.read() == b"data: 1\n\n"
    transport = exchange._response.connection.transport  # type: ignore[union-attr]
    assert transport is not None
    go.set()
    while not transport.is_closing():  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    assert await asyncio.wait_for(exchange.pour(taken), 5) is False
    assert await exchange.read() == b"data: 2\n\n"
    with pytest.raises(UpstreamError, match="bad_http"):
        await asyncio.wait_for(exchange.read(), 5)
    exchange.close()
    await asyncio.wait_for(upstream.connections[0].closed.wait(), 5)


@pytest.mark.parametrize("how", ["cancelled", "closed"])
async def test_it_can_be_called_off(upstream: Upstream, client: HttpClient, how: str) -> None:
    upstream.then((*SSE_HEAD, event("1"), End.STALL))
    exchange, taken = await opened(client), Taken()
    pouring = asyncio.create_task(exchange.pour(taken))
    await taken.came.wait()
    if how == "cancelled":
        pouring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pouring
        exchange.close()
    else:
        exchange.close()
        assert await asyncio.wait_for(pouring, 5) is False
        with pytest.raises(UpstreamError, match="closed"):
            await exchange.read()
    await asyncio.wait_for(upstream.connections[0].closed.wait(), 5)
