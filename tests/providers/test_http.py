import asyncio
import gzip
import logging
import socket
import ssl
import traceback
import zlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from router_server.core.errors import Outcome, Phase, UpstreamError
from router_server.core.provider import Surroundings
from router_server.providers import _http
from router_server.providers._endpoint import parse_endpoint
from router_server.providers._failure import NO_VERDICT, Verdict, read_retry_after
from router_server.providers._http import HttpClient
from tests.upstream import (
    LAST_CHUNK,
    SSE_HEAD,
    End,
    Reply,
    Upstream,
    chunk,
    event,
    head,
    json_reply,
    reply,
)

SECRET = "sk-very-secret"


PLAIN = Surroundings("x")


def client_for(base_url: str, surroundings: Surroundings = PLAIN) -> HttpClient:
    return HttpClient(
        parse_endpoint(base_url, default_path="/v1"),
        {"Authorization": f"Bearer {SECRET}"},
        surroundings,
        lambda _status, _body: NO_VERDICT,
        clock=lambda: 1_000_000_000.0,
    )


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def client(upstream: Upstream) -> AsyncIterator[HttpClient]:
    made = client_for(upstream.base_url)
    yield made
    await made.close()


async def post(client: HttpClient, body: bytes = b"{}") -> bytes:
    return await client.post("/chat", body, {}, 5.0)


async def failure(client: HttpClient, body: bytes = b"{}") -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await post(client, body)
    assert_tells_nothing(caught.value)
    return caught.value


def assert_tells_nothing(error: UpstreamError) -> None:
    text = "".join(traceback.format_exception(error))
    assert SECRET not in text
    assert "127.0.0.1" not in text
    assert "upstream wrote this" not in text


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


async def test_a_unix_socket(tmp_path: Path) -> None:
    async with Upstream(path=tmp_path / "s") as upstream:
        upstream.always(json_reply({}))
        client = client_for(upstream.base_url)
        assert await post(client) == b"{}"
        assert upstream.requests[0].target == "/v1/chat"
        assert client.address == (str(tmp_path / "s"), None)
        await client.close()


async def test_a_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    client = client_for(f"unix://{tmp_path}/none")
    error = await failure(client)
    assert (error.outcome, error.reason) == (Outcome.UNAVAILABLE, "refused")
    await client.close()


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (400, Outcome.INVALID_REQUEST),
        (401, Outcome.AUTH),
        (402, Outcome.AUTH),
        (403, Outcome.AUTH),
        (404, Outcome.MODEL_MISSING),
        (405, Outcome.INVALID_REQUEST),
        (408, Outcome.UNAVAILABLE),
        (409, Outcome.INVALID_REQUEST),
        (413, Outcome.INVALID_REQUEST),
        (415, Outcome.INVALID_REQUEST),
        (418, Outcome.INVALID_REQUEST),
        (422, Outcome.INVALID_REQUEST),
        (425, Outcome.UNAVAILABLE),
        (429, Outcome.RATE_LIMITED),
        (500, Outcome.UNAVAILABLE),
        (502, Outcome.UNAVAILABLE),
        (503, Outcome.UNAVAILABLE),
        (504, Outcome.UNAVAILABLE),
        (529, Outcome.UNAVAILABLE),
        (301, Outcome.MALFORMED),
        (307, Outcome.MALFORMED),
    ],
)
async def test_a_status_becomes_a_class(
    upstream: Upstream, client: HttpClient, status: int, outcome: Outcome
) -> None:
    upstream.then(reply(b"upstream wrote this", status, {"Location": f"{upstream.root_url}/elsewhere"}))
    error = await failure(client)
    assert (error.outcome, error.reason, error.status) == (outcome, f"http_{status}", status)
    assert len(upstream.requests) == 1


async def test_the_connection_is_good_again_after_an_error(upstream: Upstream, client: HttpClient) -> None:
    upstream.then(json_reply({}, 500), json_reply({}))
    await failure(client)
    await post(client)
    assert len(upstream.connections) == 1


async def test_the_provider_reads_its_own_error_body(upstream: Upstream) -> None:
    seen: list[tuple[int, bytes]] = []

    def read(status: int, body: bytes) -> Verdict:
        seen.append((status, body))
        return Verdict(Outcome.CONTEXT_LENGTH, "too_long", 99.0)

    client = HttpClient(parse_endpoint(upstream.base_url), {}, Surroundings("x"), read)
    upstream.then(reply(b"x" * 200_000, 400, {"Retry-After": "3"}))
    error = await failure(client)
    assert (error.outcome, error.reason, error.retry_after) == (Outcome.CONTEXT_LENGTH, "too_long", 60.0)
    assert seen == [(400, b"x" * 65_536)]
    await client.close()


async def test_an_error_whose_body_breaks_off_is_still_what_its_status_says(
    upstream: Upstream, client: HttpClient
) -> None:
    upstream.then((head(429, {"Content-Length": "100", "Retry-After": "2"}) + b"part", End.RESET))
    error = await failure(client)
    assert (error.outcome, error.retry_after) == (Outcome.RATE_LIMITED, 2.0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "2"}, 2.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "7200"}, 60.0),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": format_datetime(datetime.fromtimestamp(1_000_000_007, UTC), usegmt=True)}, 7.0),
        ({"Retry-After": format_datetime(datetime.fromtimestamp(999_999_000, UTC), usegmt=True)}, 0.0),
        ({"Retry-After": "Mon, 99 Foo 2001 99:99:99 GMT"}, None),
        ({"Retry-After": "9", "retry-after-ms": "250"}, 0.25),
        ({"Retry-After": "9", "retry-after-ms": "x"}, 9.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers, 60.0, lambda: 1_000_000_000.0) == seconds


async def test_retry_after_reaches_the_error(upstream: Upstream) -> None:
    client = client_for(upstream.base_url, Surroundings("x", retry_after_cap=5.0))
    date = format_datetime(datetime.fromtimestamp(1_000_000_003, UTC), usegmt=True)
    upstream.then(json_reply({}, 429, {"Retry-After": date}), json_reply({}, 503, {"retry-after": "600"}))
    assert [(await failure(client)).retry_after for _ in range(2)] == [3.0, 5.0]
    await client.close()


@pytest.mark.parametrize(
    ("what", "outcome", "reason"),
    [
        ((End.RESET,), Outcome.UNAVAILABLE, "reset"),
        ((End.CLOSE,), Outcome.UNAVAILABLE, "closed"),
        ((b"HTTP/1.1 200 OK\r\nContent-Le", End.CLOSE), Outcome.UNAVAILABLE, "closed"),
        ((head(headers={"Content-Length": "9"}) + b"{", End.CLOSE), Outcome.UNAVAILABLE, "closed"),
        ((head(headers={"Content-Length": "9"}) + b"{", End.RESET), Outcome.UNAVAILABLE, "reset"),
        ((*SSE_HEAD, chunk(b"{"), End.CLOSE), Outcome.UNAVAILABLE, "closed"),
        ((b"SSH-2.0-OpenSSH\r\n\r\n", End.CLOSE), Outcome.MALFORMED, "bad_http"),
        ((head(headers={"X": "y" * 100_000}), End.CLOSE), Outcome.MALFORMED, "bad_http"),
        ((head(headers={f"X-{i}": "y" for i in range(1000)}), End.CLOSE), Outcome.MALFORMED, "bad_http"),
        (reply(b"no gzip", headers={"Content-Encoding": "gzip"}), Outcome.MALFORMED, "bad_content_encoding"),
    ],
    ids=lambda value: None if isinstance(value, (tuple, Outcome)) else value,
)
async def test_what_goes_wrong_on_the_wire(
    upstream: Upstream, client: HttpClient, what: Reply, outcome: Outcome, reason: str
) -> None:
    upstream.then(what, json_reply({}))
    error = await failure(client)
    assert (error.outcome, error.reason) == (outcome, reason)
    assert await post(client) == b"{}"


async def test_refused() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        client = client_for(f"http://127.0.0.1:{bound.getsockname()[1]}/v1")
        error = await failure(client)
    assert (error.outcome, error.reason) == (Outcome.UNAVAILABLE, "refused")
    await client.close()


async def test_a_name_that_does_not_exist() -> None:
    client = client_for("http://no-such-host.invalid/v1")
    error = await failure(client)
    assert (error.outcome, error.reason) == (Outcome.UNAVAILABLE, "dns")
    await client.close()


def self_signed() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2120, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    private, certificate = self_signed()
    (tmp_path / "key").write_bytes(private)
    (tmp_path / "cert").write_bytes(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    async with Upstream(tls=context) as upstream:
        client = client_for(upstream.base_url)
        error = await failure(client)
        assert (error.outcome, error.reason) == (Outcome.UNAVAILABLE, "tls")
        await client.close()


async def test_tls_towards_a_server_that_speaks_none() -> None:
    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head(400))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    client = client_for(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    error = await failure(client)
    assert (error.outcome, error.reason) == (Outcome.UNAVAILABLE, "tls")
    await client.close()
    server.close()


async def test_a_connect_that_nobody_answers_is_a_timeout_of_that_phase() -> None:
    # TLS is part of connecting, and this server accepts without ever shaking hands.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = client_for(f"https://127.0.0.1:{silent.getsockname()[1]}/v1")
        with pytest.raises(UpstreamError) as caught:
            await client.post("/chat", b"{}", {}, 0.05)
    error = caught.value
    assert (error.outcome, error.reason, error.phase) == (Outcome.TIMEOUT, "connect_timeout", Phase.CONNECT)
    assert_tells_nothing(error)
    await client.close()


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


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)], ids=["gzip", "deflate"]
)
async def test_compressed_answers(
    upstream: Upstream, client: HttpClient, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    body = compress(b'{"text": "' + b"a" * 1_000_000 + b'"}')
    upstream.then(reply(body, headers={"Content-Encoding": encoding}))
    assert len(await post(client)) == 1_000_012


@pytest.mark.parametrize("status", [200, 500])
async def test_a_decompression_bomb_is_given_up(
    upstream: Upstream, client: HttpClient, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(_http, "MAX_BODY_BYTES", 1_000_000)
    bomb = gzip.compress(b"0" * 300_000_000, 1)
    assert len(bomb) < 3_000_000
    upstream.then(reply(bomb, status, {"Content-Encoding": "gzip"}))
    error = await failure(client)
    assert error.reason == ("body_too_large" if status == 200 else "http_500")
    await upstream.connections[0].closed.wait()


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
