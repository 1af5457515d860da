"""How exchanges end: given back to the pool, given up, cancelled."""

import asyncio
import socket

import pytest

from router_server.core.errors import Outcome, UpstreamError
from router_server.providers._http import HttpClient
from tests.providers.http_exchange import client_for, failure, post
from tests.upstream import (
    LAST_CHUNK,
    SSE_HEAD,
    End,
    Reply,
    Upstream,
    event,
    json_reply,
)


async def test_the_connection_is_good_again_after_an_error(upstream: Upstream, client: HttpClient) -> None:
    upstream.then(json_reply({}, 500), json_reply({}))
    await failure(client)
    await post(client)
    assert len(upstream.connections) == 1


async def test_a_pooled_connection_that_the_upstream_closed_costs_one_clean_failure_at_most(
    upstream: Upstream, client: HttpClient
) -> None:
    # The close comes with the answer, in the moment that the client puts the connection into its pool.
    upstream.always((*json_reply({}), End.CLOSE))
    outcomes = []
    for _ in range(20):
        try:
            outcomes.append(await post(client))
        except UpstreamError as error:
            assert error.outcome is Outcome.UNAVAILABLE  # noqa: PT017 - most rounds do not fail at all
    assert outcomes
    upstream.always(json_reply({}))
    await asyncio.gather(*(post(client) for _ in range(64)), return_exceptions=True)
    assert await post(client) == b"{}"


async def test_a_reset_instead_of_an_answer_on_a_pooled_connection(
    upstream: Upstream, client: HttpClient
) -> None:
    upstream.then(json_reply({}), (End.CLOSE,), json_reply({}))
    await post(client)
    error = await failure(client)
    assert (error.outcome, error.reason) == (Outcome.UNAVAILABLE, "closed")
    assert len(upstream.requests) == 2, "a POST is never sent again by the transport"
    assert await post(client) == b"{}"


async def test_a_stream_comes_as_it_is_read(upstream: Upstream, client: HttpClient) -> None:
    go = asyncio.Event()
    upstream.then((*SSE_HEAD, event("1"), go, event("2") + event("3"), LAST_CHUNK))
    exchange = await client.open("/chat", b"{}", {}, 5.0)
    assert await exchange.read() == b"data: 1\n\n"
    go.set()
    assert await exchange.read() == b"data: 2\n\ndata: 3\n\n"
    assert await exchange.read() == b""
    exchange.close()
    upstream.then(json_reply({}))
    await post(client)
    assert len(upstream.connections) == 1


async def test_a_farewell_saves_the_connection(upstream: Upstream, client: HttpClient) -> None:
    asked = asyncio.Event()
    upstream.then((*SSE_HEAD, event("1"), asked, LAST_CHUNK), json_reply({}))
    exchange = await client.open("/chat", b"{}", {}, 5.0)
    await exchange.read()
    asked.set()
    await exchange.read_farewell()
    exchange.close()
    await post(client)
    assert len(upstream.connections) == 1


async def test_a_farewell_does_not_wait_for_ever(upstream: Upstream, client: HttpClient) -> None:
    upstream.then((*SSE_HEAD, event("1"), End.STALL))
    exchange = await client.open("/chat", b"{}", {}, 5.0)
    await exchange.read()
    await exchange.read_farewell()
    exchange.close()
    await upstream.connections[0].closed.wait()


async def test_closing_an_unfinished_exchange_closes_its_connection(
    upstream: Upstream, client: HttpClient
) -> None:
    upstream.then((*SSE_HEAD, event("1"), End.STALL), json_reply({}))
    exchange = await client.open("/chat", b"{}", {}, 5.0)
    await exchange.read()
    exchange.close()
    exchange.close()
    async with asyncio.timeout(5):
        await upstream.connections[0].closed.wait()
    await post(client)
    assert len(upstream.connections) == 2


@pytest.mark.parametrize("what", [(End.STALL,), (*SSE_HEAD, event("1"), End.STALL)], ids=["headers", "body"])
async def test_cancelling_closes_the_connection(upstream: Upstream, client: HttpClient, what: Reply) -> None:
    upstream.then(what)
    task = asyncio.create_task(post(client))
    await upstream.requested()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        await upstream.connections[0].closed.wait()


async def test_cancelling_an_upload_that_the_upstream_does_not_read_leaves_no_socket_behind() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        client = client_for(f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
        task = asyncio.create_task(post(client, b"x" * 32_000_000))
        accepted, _ = await loop.sock_accept(listening)
        with accepted:
            await loop.sock_recv(accepted, 1)
            assert client._session.connector is not None
            [protocol] = client._session.connector._acquired
            assert protocol.transport is not None
            ours = protocol.transport.get_extra_info("socket")
            while not protocol.transport.get_write_buffer_size():  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0)
            assert ours.fileno() == -1, "a graceful close would wait until the upstream has read everything"
    await client.close()


async def test_closing_the_client_ends_what_is_under_way(upstream: Upstream, client: HttpClient) -> None:
    upstream.then((*SSE_HEAD, event("1"), End.STALL), (End.STALL,))
    exchange = await client.open("/chat", b"{}", {}, 5.0)
    await exchange.read()
    reading = asyncio.create_task(exchange.read())
    waiting = asyncio.create_task(post(client))
    await upstream.requested(2)
    await client.close()
    for task in (reading, waiting):
        with pytest.raises(UpstreamError) as caught:
            await task
        assert (caught.value.outcome, caught.value.reason) == (Outcome.UNAVAILABLE, "closed")
    assert (await failure(client)).reason == "provider_closed"
