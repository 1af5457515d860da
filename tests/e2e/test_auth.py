"""Who may call, through a whole server and real channels."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from cryptography import x509
from google.rpc import error_details_pb2
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from modelrouter.v1 import models_pb2, service_pb2_grpc
from router_server.auth.api_keys import hash_of
from router_server.auth.key_file import KeyFile
from router_server.auth.key_set import Adding, Revoking
from router_server.config.callers import KeyConfig
from tests.auth.issuer import AUDIENCE, ISSUER, SigningKey, issuing
from tests.e2e.serving import Failure, Served, answer, chat, fails, failure_of, serving, two_targets
from tests.rpc.certificates import Authority, Pair
from tests.telemetry.collector import attributes, collector
from tests.upstream import Upstream, json_reply

MOCK = """
providers: {m: {kind: mock}}
targets: {t: {provider: m, model: x}}
routes: {chat: {targets: [t], aliases: [gpt]}, other: {targets: [t]}}
"""
SECRET = "mr-very-secret-key-of-search"
KEYS = [
    {"name": "search", "sha256": hash_of(SECRET), "routes": ["ch*"], "labels": {"team": "find"}},
    {"name": "all", "sha256": hash_of("very-secret-all")},
    {"name": "old", "sha256": hash_of("very-secret-old"), "expires": "2020-01-01T00:00:00Z"},
]


def with_auth(parts: str = MOCK, **auth: Any) -> str:
    return f"{parts}\nauth: {json.dumps(auth)}\n"


def bearer(secret: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {secret}"),)


async def refused(served: Served, *metadata: tuple[str, str], model: str = "chat") -> Failure:
    return await fails(served.stub.Chat(chat(model), metadata=metadata))


async def test_a_key_in_either_place_is_known() -> None:
    async with serving(with_auth(api_keys=KEYS)) as served:
        for metadata in (
            bearer(SECRET),
            (("authorization", f"bearer  {SECRET} "),),
            (("x-api-key", SECRET),),
            (*bearer(SECRET), ("x-api-key", "anything")),
        ):
            assert (await served.stub.Chat(chat(), metadata=metadata)).message.content
            events = [one async for one in served.stub.StreamChat(chat(), metadata=metadata)]
            assert events[-1].WhichOneof("event") == "finished"


async def test_everyone_else_is_told_why_and_nothing_more() -> None:
    async with serving(with_auth(api_keys=KEYS)) as served:
        problems = {
            (): "missing",
            bearer("very-secret-guess"): "invalid",
            bearer("very-secret-old"): "expired",
            (("authorization", "Basic dmVyeTpzZWNyZXQ="),): "invalid",
            (("authorization", SECRET),): "invalid",
            (("x-api-key", "very-secret-guess"),): "invalid",
            (*bearer("very-secret-guess"), *bearer(SECRET)): "invalid",
        }
        for metadata, problem in problems.items():
            failure = await refused(served, *metadata)
            assert (failure.code, failure.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
            assert failure.metadata == {"problem": problem}
            assert failure.pushback is None
        with pytest.raises(aio.AioRpcError) as raised:
            await served.stub.ListModels(models_pb2.ListModelsRequest())
        assert failure_of(raised.value).reason == "UNAUTHENTICATED"


async def test_a_key_for_some_routes_sees_and_calls_no_others() -> None:
    async with serving(with_auth(api_keys=KEYS)) as served:
        mine = bearer(SECRET)
        assert (await served.stub.Chat(chat("gpt"), metadata=mine)).message.content
        for model in ("other", "none", "m/x"):
            failure = await refused(served, *mine, model=model)
            assert (failure.code, failure.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
            assert failure.metadata == {"principal": "key/search"}
        unknown = await refused(served, *bearer("very-secret-all"), model="none")
        assert unknown.reason == "MODEL_NOT_FOUND"
        seen = {}
        for secret in (SECRET, "very-secret-all"):
            listed = await served.stub.ListModels(models_pb2.ListModelsRequest(), metadata=bearer(secret))
            seen[secret] = [model.name for model in listed.models]
        assert seen == {SECRET: ["chat"], "very-secret-all": ["chat", "other"]}


async def test_health_and_the_contract_are_for_everyone() -> None:
    async with serving(with_auth(api_keys=KEYS)) as served, aio.insecure_channel(served.target) as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        answers = [one async for one in stub.ServerReflectionInfo(asked)]
        assert answers[0].list_services_response.service


async def test_keys_are_added_and_revoked_while_it_runs(tmp_path: Path) -> None:
    place = KeyFile(tmp_path / "keys.yaml")
    await place.change(Adding(KeyConfig(name="a", sha256=hash_of("very-secret-a"))))
    async with serving(with_auth(api_keys=str(tmp_path / "keys.yaml"))) as served:
        assert (await served.stub.Chat(chat(), metadata=bearer("very-secret-a"))).message.content
        await place.change(Adding(KeyConfig(name="b", sha256=hash_of("very-secret-b"))))
        await place.change(Revoking("a"))
        while True:
            try:
                assert (await served.stub.Chat(chat(), metadata=bearer("very-secret-b"))).message.content
            except aio.AioRpcError:
                continue
            break
        assert (await refused(served, *bearer("very-secret-a"))).reason == "UNAUTHENTICATED"


async def test_a_callers_key_goes_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    async with collector() as otlp, Upstream() as a, Upstream() as b:
        a.always(json_reply(answer()))
        text = with_auth(two_targets(a, b), api_keys=KEYS)
        async with serving(
            f"{text}telemetry: {{otlp_endpoint: '{otlp.url}', record_content: true}}"
        ) as served:
            await served.stub.Chat(chat(), metadata=(*bearer(SECRET), ("x-api-key", "very-secret-all")))
            await refused(served, *bearer("very-secret-guess"))
        sent = json.dumps([dict(request.headers) for request in a.requests])
        log = capsys.readouterr().err
        for shown in (sent, log, otlp.everything()):
            assert SECRET not in shown
            assert "very-secret-guess" not in shown
            assert "very-secret-all" not in shown
            assert hash_of(SECRET) not in shown
        lines = [json.loads(line) for line in log.splitlines()]
        good, bad = [line for line in lines if line["logger"] == "router_server.access"]
        assert (good["principal"], good["code"]) == ("key/search", "OK")
        assert good["principal_labels"] == {"team": "find"}
        assert (bad.get("principal"), bad["code"]) == (None, "UNAUTHENTICATED")
        rpcs = [one for one in otlp.spans if one.name.endswith("/Chat")]
        names = [attributes(one.attributes).get("modelrouter.principal") for one in rpcs]
        assert sorted(names, key=str) == [None, "key/search"]
        labels = [attributes(one.attributes).get("modelrouter.principal.label.team") for one in rpcs]
        assert sorted(labels, key=str) == [None, "find"]
        points = otlp.metrics["modelrouter.caller.rpcs"].sum.data_points
        assert [attributes(point.attributes) for point in points] == [
            {"principal": "key/search", "code": "OK"}
        ]


async def test_tokens_of_an_identity_provider() -> None:
    key = SigningKey("k1")
    async with issuing(key) as issuer:
        settings = {
            "jwks": issuer.url,
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "required_claims": {"scope": "models"},
            "tenant_claim": "org",
            "routes": ["chat"],
        }
        async with serving(with_auth(jwt=settings, api_keys=KEYS)) as served:
            good = key.token(scope="models", org="acme")
            assert (await served.stub.Chat(chat(), metadata=bearer(good))).message.content
            assert (await served.stub.Chat(chat(), metadata=bearer(SECRET))).message.content
            assert (await refused(served, *bearer(good), model="other")).metadata == {"principal": "jwt/acme"}
            assert (await refused(served, *bearer(key.token(org="acme")))).reason == "PERMISSION_DENIED"
            assert (await refused(served, *bearer(key.token(exp=1)))).metadata == {"problem": "expired"}
            assert (await refused(served, ("x-api-key", good))).metadata == {"problem": "invalid"}


@asynccontextmanager
async def channel_with(served: Served, ca: Authority, pair: Pair) -> AsyncIterator[Any]:
    files = (ca.cert, pair.key, pair.cert)
    root, key, cert = [file.read_bytes() for file in files]
    credentials = grpc.ssl_channel_credentials(root, key, cert)
    async with aio.secure_channel(served.target, credentials) as channel:
        yield service_pb2_grpc.ModelRouterServiceStub(channel)


async def test_the_owner_of_a_client_certificate(tmp_path: Path) -> None:
    ca = Authority(tmp_path, "ca")
    own = ca.issue("server")
    tls = {"cert": str(own.cert), "key": str(own.key), "client_ca": str(ca.cert)}
    mtls = {"allow": ["spiffe://corp/*", "worker-?"], "routes": ["chat"]}
    spiffe = ca.issue("by-uri", x509.DNSName("host"), x509.UniformResourceIdentifier("spiffe://corp/search"))
    text = with_auth(mtls=mtls, api_keys=KEYS) + f"server: {json.dumps({'tls': tls})}\n"
    async with serving(text) as served:
        async with channel_with(served, ca, spiffe) as stub:
            assert (await stub.Chat(chat())).message.content
            denied = await fails(stub.Chat(chat("other")))
            assert denied.metadata == {"principal": "mtls/spiffe://corp/search"}
            assert (await stub.Chat(chat("other"), metadata=bearer("very-secret-all"))).message.content
            assert (
                await fails(stub.Chat(chat(), metadata=bearer("very-secret-x")))
            ).reason == "UNAUTHENTICATED"
        async with channel_with(served, ca, ca.issue("worker-1")) as stub:
            assert (await stub.Chat(chat())).message.content
        for stranger in (ca.issue("stranger"), ca.issue("worker-1b", x509.DNSName("worker-10"))):
            async with channel_with(served, ca, stranger) as stub:
                failure = await fails(stub.Chat(chat()))
                assert failure.code == "PERMISSION_DENIED"


async def test_a_certificate_without_a_name_is_nobody(tmp_path: Path) -> None:
    ca = Authority(tmp_path, "ca")
    own = ca.issue("server")
    tls = {"cert": str(own.cert), "key": str(own.key), "client_ca": str(ca.cert)}
    async with (
        serving(with_auth(mtls={}) + f"server: {json.dumps({'tls': tls})}\n") as served,
        channel_with(served, ca, ca.issue("")) as stub,
    ):
        assert (await fails(stub.Chat(chat()))).metadata == {"problem": "invalid"}


async def test_a_caller_who_is_refused_costs_no_upstream_call() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(json_reply(answer()))
        async with serving(with_auth(two_targets(a, b), api_keys=KEYS)) as served:
            failure = await refused(served)
            assert failure.detail(error_details_pb2.RetryInfo) is None
        assert not a.requests


def test_the_file_of_keys_is_plain_yaml_without_keys(tmp_path: Path) -> None:
    import asyncio  # noqa: PLC0415 - this test alone runs a loop of its own

    path = tmp_path / "keys.yaml"
    asyncio.run(KeyFile(path).change(Adding(KeyConfig(name="a", sha256=hash_of(SECRET)))))
    assert SECRET not in path.read_text()
    assert yaml.safe_load(path.read_text())["keys"] == [{"name": "a", "sha256": hash_of(SECRET)}]
