"""How a client reaches its router: targets, TLS, keys, limits of the channel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from modelrouter import AsyncClient, Client, ServerUnreachable, TlsConfig
from modelrouter.connection import ConnectOptions, connection
from tests.client.certificates import Authority
from tests.client.scripted import ScriptedRouter, answer, running
from tests.client.shells import opened


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:50051",
        "router:50051",
        "dns:///router:50051",
        "[::1]:50051",
        "ipv4:10.0.0.1:1",
        "unix:/tmp/r.sock",
    ],
)
def test_an_address_is_taken(target: str) -> None:
    assert connection(target, {}).target == target


@pytest.mark.parametrize("target", ["router", "[::1]", "router:", "router:grpc"])
def test_a_target_without_a_port_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match=r"names no port; write host:port"):
        connection(target, {})


def test_a_url_is_no_target() -> None:
    with pytest.raises(ValueError, match=r"is a URL; write host:port, and tls=True for TLS"):
        connection("https://router:443", {})


def test_the_target_comes_from_the_environment_then_from_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELROUTER_TARGET", "router:1")
    assert connection(None, {}).target == "router:1"
    assert connection("other:2", {}).target == "other:2"
    monkeypatch.setenv("MODELROUTER_TARGET", "")
    assert connection(None, {}).target == "127.0.0.1:50051"


def test_an_option_that_does_not_exist_is_refused() -> None:
    wrong: Any = {"api_keys": "k"}

    with pytest.raises(TypeError, match="there is no option 'api_keys'"):
        connection("router:1", wrong)


@pytest.mark.parametrize(
    "target", ["router:1", "10.0.0.1:1", "dns:///router:1", "ipv4:10.0.0.1:1", "ipv4:127.0.0.1:1,10.0.0.1:1"]
)
def test_a_key_does_not_travel_unencrypted(target: str) -> None:
    with pytest.raises(ValueError, match="would travel unencrypted to") as caught:
        connection(target, {"api_key": "sk-secret"})

    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("127.0.0.1:1", {}),
        ("localhost:1", {}),
        ("[::1]:1", {}),
        ("ipv4:127.0.0.1:1", {}),
        ("ipv4:127.0.0.1:1,127.8.9.10:2", {}),
        ("dns:///localhost:1", {}),
        ("unix:/tmp/r.sock", {}),
        ("router:1", {"tls": True}),
        ("router:1", {"insecure_api_key": True}),
    ],
)
def test_a_key_travels_where_nobody_listens(target: str, options: ConnectOptions) -> None:
    made = connection(target, {"api_key": "sk-secret", **options})

    assert made.arguments(None, None)["metadata"] == (("x-api-key", "sk-secret"),)
    assert "sk-secret" not in repr(made)


@pytest.mark.parametrize("attempts", [0, 6])
def test_grpc_makes_one_to_five_attempts(attempts: int) -> None:
    with pytest.raises(ValueError, match="must be 1 to 5"):
        connection("router:1", {"max_attempts": attempts})


def test_channel_options_of_the_caller_come_last() -> None:
    options = connection("router:1", {"channel_options": [("grpc.keepalive_time_ms", 1)]}).channel_options

    assert dict(options)["grpc.keepalive_time_ms"] == 1
    assert json.loads(dict(options)["grpc.service_config"])["methodConfig"][0]["waitForReady"] is False


def test_a_proxy_is_not_asked_for_this_machine() -> None:
    assert dict(connection("localhost:1", {}).channel_options)["grpc.enable_http_proxy"] == 0
    assert "grpc.enable_http_proxy" not in dict(connection("router:1", {}).channel_options)


async def test_the_proxy_of_the_environment_does_not_stand_in_the_way(
    router: ScriptedRouter, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    router.play([answer("!")])

    async with opened(kind, router.target) as shell:
        assert (await shell.chat("?")).text == "!"


async def test_a_large_answer_arrives(router: ScriptedRouter, kind: str) -> None:
    text = "x" * 24 * 1024 * 1024
    router.play([answer(text)])

    async with opened(kind, router.target) as shell:
        assert (await shell.chat("?")).text == text


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


@pytest.fixture
def tls_router(authority: Authority) -> Iterator[ScriptedRouter]:
    """A router that shows a certificate for router.test, and wants one from its callers."""
    own = authority.sign("router.test")
    credentials = grpc.ssl_server_credentials(
        [(own.key, own.certificate)], root_certificates=authority.pem, require_client_auth=True
    )
    with running(
        ScriptedRouter(), lambda server: f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    ) as router:
        router.play([answer("Paris.")])
        yield router


async def test_mutual_tls_with_files_and_bytes(
    tls_router: ScriptedRouter, authority: Authority, kind: str, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    own = authority.sign("caller.test")
    tls = TlsConfig(ca=ca, cert=own.certificate, key=own.key, server_name="router.test")

    async with opened(kind, tls_router.target, tls=tls, api_key="k") as shell:
        assert (await shell.chat("?")).text == "Paris."

    assert tls_router.calls[0].metadata["x-api-key"] == "k"
    assert "PRIVATE KEY" not in repr(tls)


async def test_a_server_of_another_authority_is_not_talked_to(tls_router: ScriptedRouter, kind: str) -> None:
    tls = TlsConfig(ca=Authority.create().pem, server_name="router.test")

    async with opened(kind, tls_router.target, tls=tls, max_attempts=1) as shell:
        with pytest.raises(ServerUnreachable, match=r"(?i)certificate|handshake|ssl"):
            await shell.chat("?")

    assert tls_router.calls == []


def test_half_of_a_client_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="takes both cert and key"):
        connection("router:1", {"tls": TlsConfig(cert=b"x")})


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ca\.pem"):
        connection("router:1", {"tls": TlsConfig(ca=tmp_path / "ca.pem")})


def test_an_asyncio_client_can_be_made_before_the_loop_runs() -> None:
    assert AsyncClient("router:1").target == "router:1"


async def test_an_unused_asyncio_client_closes_quietly() -> None:
    await AsyncClient("router:1").close()


def test_a_closed_client_refuses_calls(router: ScriptedRouter) -> None:
    client = Client(router.target)
    client.close()

    with pytest.raises(ValueError, match="closed"):
        client.chat("?")


async def test_a_unix_socket_is_a_target(kind: str, tmp_path: Path) -> None:
    path = f"unix:{tmp_path / 'r.sock'}"

    def bind(server: grpc.aio.Server) -> str:
        server.add_insecure_port(path)
        return path

    with running(ScriptedRouter(), bind) as router:
        router.play([answer("Paris.")])
        async with opened(kind, router.target, api_key="k") as shell:
            assert (await shell.chat("?")).text == "Paris."
