"""The client of the HTTP providers over real sockets: what it sends and what it reads."""

import asyncio
import gzip
import logging
import socket
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from router_server.core.provider import Surroundings
from router_server.providers._endpoint import parse_endpoint
from router_server.providers._http import HttpClient
from tests.providers.http_exchange import SECRET, client_for, failure, post
from tests.upstream import (
    SSE_HEAD,
    End,
    Upstream,
    json_reply,
    reply,
)


async def test_a_post_carries_body_and_headers_and_reuses_its_connection(
    upstream: Upstream, client: HttpClient
) -> None:
    upstream.always(json_reply({"ok": True}))
    assert await client.post("/chat", b'{"a":1}', {"traceparent": "00-1"}, 5.0) == b'{"ok": true}'
    await post(client)
    request = upstream.requests[0]
    assert (request.method, request.target, request.body) == ("POST", "/v1/chat", b'{"a":1}')
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "gzip, deflate"
    assert request.headers["traceparent"] == "00-1"
    assert len(upstream.connections) == 1


async def test_what_is_ahead_of_the_answer_is_passed_over(upstream: Upstream, client: HttpClient) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    upstream.always((early, *json_reply({"ok": True})))
    for _ in range(2):
        assert await post(client) == b'{"ok": true}'
    assert len(upstream.connections) == 1


@pytest.mark.parametrize("value", ["a\r\nX-Mine: 1", "a\nX-Mine: 1", "a\rb"])
async def test_no_value_of_a_header_becomes_another_one(
    upstream: Upstream, client: HttpClient, value: str
) -> None:
    with pytest.raises(ValueError, match="line end"):
        await client.open("/chat", b"{}", {"tracestate": value}, 5.0)
    assert not upstream.requests


@pytest.mark.parametrize("size", [1024 * 1024, 1024 * 1024 + 1])
async def test_a_large_body_arrives_whole(upstream: Upstream, client: HttpClient, size: int) -> None:
    upstream.always(json_reply({}))
    await post(client, b"x" * size)
    request = upstream.requests[0]
    assert request.body == b"x" * size
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.headers["content-type"] == "application/json"


async def test_a_unix_socket(tmp_path: Path) -> None:
    async with Upstream(path=tmp_path / "s") as upstream:
        upstream.always(json_reply({}))
        client = client_for(upstream.base_url)
        assert await post(client) == b"{}"
        assert upstream.requests[0].target == "/v1/chat"
        assert client.address == (str(tmp_path / "s"), None)
        await client.close()


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)], ids=["gzip", "deflate"]
)
async def test_compressed_answers(
    upstream: Upstream, client: HttpClient, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    body = compress(b'{"text": "' + b"a" * 1_000_000 + b'"}')
    upstream.then(reply(body, headers={"Content-Encoding": encoding}))
    assert len(await post(client)) == 1_000_012


async def test_no_proxy_no_cookie_no_redirect(
    upstream: Upstream, client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    upstream.then(json_reply({}, headers={"Set-Cookie": "a=b"}), json_reply({}))
    await post(client)
    await post(client)
    assert "cookie" not in upstream.requests[1].headers


async def test_the_connections_are_bounded_and_a_check_has_one_of_its_own(upstream: Upstream) -> None:
    client = client_for(upstream.base_url, Surroundings("x", max_connections=2))
    upstream.on("/v1/models", json_reply({})).always((End.STALL,))
    tasks = [asyncio.create_task(post(client)) for _ in range(2)]
    await upstream.requested(2)
    assert await client.status("/models") == 200
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.close()


async def test_no_key_in_a_repr_or_a_log(
    upstream: Upstream, client: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    upstream.then(json_reply({}), (End.RESET,))
    await post(client)
    await failure(client)
    assert SECRET not in repr(client) + repr(client._session) + caplog.text


async def test_nagle_is_off(upstream: Upstream, client: HttpClient) -> None:
    upstream.then((*SSE_HEAD, End.STALL))
    exchange = await client.open("/chat", b"{}", {}, 5.0)
    connection: aiohttp.connector.Connection | None = exchange._response.connection
    assert connection is not None
    assert connection.transport is not None
    sock = connection.transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    exchange.close()


@pytest.mark.parametrize(
    ("text", "url", "address"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/x", ("127.0.0.1", 8000)),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1/x", ("127.0.0.1", 8000)),
        ("https://api.openai.com/v1", "https://api.openai.com/v1/x", ("api.openai.com", 443)),
        ("http://[::1]:80", "http://[::1]/v1/x", ("::1", 80)),
        ("unix:///run/a.sock", "http://localhost/v1/x", ("/run/a.sock", None)),
    ],
)
def test_endpoints(text: str, url: str, address: tuple[str, int | None]) -> None:
    endpoint = parse_endpoint(text, default_path="/v1")
    assert (str(endpoint.url("/x")), endpoint.address) == (url, address)


@pytest.mark.parametrize(
    "text",
    [
        "", "127.0.0.1:8000", "ftp://x/", "http://", "http://h:99999", "http://h:0/", "http://u:hunter2@h/",
        "http://h/?key=hunter2", "http://h/#f", "unix://run/x.sock", "unix:///", "http://[hunter2",
    ],
)  # fmt: skip
def test_bad_endpoints_are_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|names|is not") as caught:
        parse_endpoint(text)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
