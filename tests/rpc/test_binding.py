"""Addresses and certificates: those that work, and a plain word for each that does not."""

from __future__ import annotations

import socket
from pathlib import Path

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from router_server.rpc.binding import BindError
from router_server.rpc.certificates import TlsError
from router_server.rpc.health import HealthBoard
from router_server.rpc.server import RpcServer
from router_server.rpc.settings import ServerSettings, Tls, channel_options
from tests.rpc.certificates import Authority
from tests.rpc.scripted import RpcLog, ScriptedRouter, chat_request, refused, serving, stub_of


def server_on(listen: str, tls: Tls | None = None) -> RpcServer:
    return RpcServer(ServerSettings(listen=listen, tls=tls), ScriptedRouter(), HealthBoard(), RpcLog())


async def test_a_taken_port_is_named_with_what_to_do() -> None:
    async with serving() as it:
        with pytest.raises(BindError, match=rf"{it.address}: the port is taken; stop whoever listens there"):
            await server_on(it.address).start()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:99999", "a port from 0 to 65535"),
        ("127.0.0.1", "write host:port"),
        (":50051", "write host:port"),
        ("", "write host:port"),
        ("127.0.0.1:http", "write host:port"),
        ("203.0.113.7:50051", "no such address"),
        ("no-such-host.invalid:50051", "cannot be resolved"),
        ("unix:/no/such/folder/router.sock", "folder does not exist"),
    ],
)
async def test_an_address_that_cannot_be_had(address: str, why: str) -> None:
    with pytest.raises(BindError, match=why) as caught:
        await server_on(address).start()
    assert address in str(caught.value)


async def test_a_socket_file_serves_and_is_not_taken_from_a_living_server(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'router.sock'}"
    async with (
        serving(settings=ServerSettings(listen=address)) as it,
        aio.insecure_channel(address) as channel,
    ):
        assert it.server.port == 0
        assert (await stub_of(channel).Chat(chat_request())).model == "chat"
        with pytest.raises(BindError, match="another server answers there"):
            await server_on(address).start()
        assert (await stub_of(channel).Chat(chat_request())).model == "chat"


async def test_a_socket_file_left_behind_is_replaced_and_another_file_is_not(tmp_path: Path) -> None:
    left = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(left))
    async with serving(settings=ServerSettings(listen=f"unix:{left}")):
        pass
    precious = tmp_path / "notes.txt"
    precious.write_text("keep me")
    with pytest.raises(BindError, match="no socket"):
        await server_on(f"unix:{precious}").start()
    assert precious.read_text() == "keep me"


async def test_ipv6_is_served() -> None:
    settings = ServerSettings(listen="[::1]:0")
    async with (
        serving(settings=settings) as it,
        aio.insecure_channel(f"[::1]:{it.server.port}") as channel,
    ):
        assert (await stub_of(channel).Chat(chat_request())).model == "chat"


async def test_tls_serves_those_who_trust_the_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    pair = authority.issue("server")
    settings = ServerSettings(listen="127.0.0.1:0", health_listen="127.0.0.1:0", tls=Tls(pair.cert, pair.key))
    async with serving(settings=settings) as it:
        trusting = grpc.ssl_channel_credentials(authority.cert.read_bytes())
        async with aio.secure_channel(it.address, trusting) as channel:
            assert (await stub_of(channel).Chat(chat_request())).model == "chat"
        stranger = grpc.ssl_channel_credentials(Authority(tmp_path, "other").cert.read_bytes())
        async with aio.secure_channel(it.address, stranger) as channel:
            answer = await refused(stub_of(channel).Chat(chat_request(), timeout=5))
            assert answer.code is grpc.StatusCode.UNAVAILABLE
        async with aio.insecure_channel(f"127.0.0.1:{it.server.health_port}") as channel:
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_mutual_tls_serves_only_those_whom_the_authority_signed(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    pair, client, stranger = authority.issue("server"), authority.issue("client"), other.issue("client")
    settings = ServerSettings(listen="127.0.0.1:0", tls=Tls(pair.cert, pair.key, authority.cert))
    root = authority.cert.read_bytes()
    async with serving(settings=settings) as it:
        known = grpc.ssl_channel_credentials(root, client.key.read_bytes(), client.cert.read_bytes())
        async with aio.secure_channel(it.address, known) as channel:
            assert (await stub_of(channel).Chat(chat_request())).model == "chat"
        for credentials in (
            grpc.ssl_channel_credentials(root),
            grpc.ssl_channel_credentials(root, stranger.key.read_bytes(), stranger.cert.read_bytes()),
        ):
            async with aio.secure_channel(it.address, credentials) as channel:
                answer = await refused(stub_of(channel).Chat(chat_request(), timeout=5))
                assert answer.code is grpc.StatusCode.UNAVAILABLE
        assert len(it.router.calls) == 1


async def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    one, two = authority.issue("one"), authority.issue("two")
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    missing = tmp_path / "missing.pem"
    for tls, named in [
        (Tls(missing, one.key), "cannot read .*missing.pem: No such file"),
        (Tls(one.cert, two.key), "ours-one.pem and .*ours-two.key are not a PEM certificate chain and its"),
        (Tls(junk, one.key), "junk.pem and "),
        (Tls(one.cert, one.key, junk), "junk.pem holds no PEM certificates"),
        (Tls(one.cert, one.key, missing), "cannot read .*missing.pem"),
    ]:
        with pytest.raises(TlsError, match=named):
            await server_on("127.0.0.1:0", tls).start()


def test_the_settings_that_matter() -> None:
    options = dict(channel_options(ServerSettings()))
    assert options == {
        "grpc.so_reuseport": 0,
        "grpc.http2.min_recv_ping_interval_without_data_ms": 10_000,
        "grpc.keepalive_time_ms": 60_000,
        "grpc.keepalive_timeout_ms": 20_000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.bdp_probe": 0,
        "grpc.http2.lookahead_bytes": 1_048_576,
        "grpc.max_receive_message_length": 16_777_216,
        "grpc.max_send_message_length": 67_108_864,
        "grpc.max_concurrent_streams": 1_024,
        "grpc.max_connection_age_ms": 1_800_000,
        "grpc.max_connection_age_grace_ms": 600_000,
        "grpc.max_metadata_size": 16_384,
    }
    assert dict(channel_options(ServerSettings(reuse_port=True)))["grpc.so_reuseport"] == 1


async def test_a_renewed_certificate_is_shown_to_whoever_comes_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, after = Authority(tmp_path, "before"), Authority(tmp_path, "after")
    pair, renewed = before.issue("server"), after.issue("server")
    settings = ServerSettings(listen="127.0.0.1:0", tls=Tls(pair.cert, pair.key))

    def channel(authority: Authority) -> aio.Channel:
        credentials = grpc.ssl_channel_credentials(authority.cert.read_bytes())
        # Or channels to one address share their connection.
        return aio.secure_channel(it.address, credentials, options=[("grpc.use_local_subchannel_pool", 1)])

    async def answered(channel: aio.Channel) -> bool:
        return bool((await stub_of(channel).Chat(chat_request())).model == "chat")

    async with serving(settings=settings) as it, channel(before) as early:
        assert await answered(early)
        renewed.cert.replace(pair.cert)
        async with channel(before) as between:
            assert await answered(between), "the key is still missing"
        assert "The former certificate stays in use" in caplog.text
        renewed.key.replace(pair.key)
        async with channel(after) as late, channel(before) as stranger:
            assert await answered(late)
            answer = await refused(stub_of(stranger).Chat(chat_request(), timeout=5))
            assert answer.code is grpc.StatusCode.UNAVAILABLE
        assert await answered(early), "who is connected stays so"
