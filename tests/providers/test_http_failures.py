"""Everything that can go wrong between two servers, and the class that it gets."""

import asyncio
import gzip
import socket
import ssl
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from router_server.core.errors import Outcome, Phase, UpstreamError
from router_server.core.provider import Surroundings
from router_server.providers import _http
from router_server.providers._endpoint import parse_endpoint
from router_server.providers._failure import Verdict, read_retry_after
from router_server.providers._http import HttpClient
from tests.providers.http_exchange import assert_tells_nothing, client_for, failure, post
from tests.upstream import (
    SSE_HEAD,
    End,
    Reply,
    Upstream,
    chunk,
    head,
    json_reply,
    reply,
)


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
