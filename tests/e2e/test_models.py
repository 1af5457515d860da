"""What callers may name: routes, and provider/model where the server allows it."""

from __future__ import annotations

from modelrouter.v1 import models_pb2
from tests.e2e.serving import answer, chat, events_of, fails, pieces, serving, text_of, two_targets
from tests.e2e.test_upstream_failures import refusal
from tests.upstream import Upstream, json_reply, sse_reply

ROUTES = """
    providers:
      chatty: {kind: mock, health_check: null}
      fixed: {kind: static, content: "Sorry.", health_check: null}
    targets:
      both: {provider: chatty, model: mock}
      chats: {provider: fixed, model: sorry}
      embeds: {provider: chatty, model: mock-embed, capabilities: {chat: false}}
    routes:
      zebra: {targets: [both, chats]}
      apology: {targets: [chats]}
      vectors: {targets: [embeds]}
"""

Model = models_pb2.Model


async def models(stub: object) -> dict[str, models_pb2.Model]:
    response = await stub.ListModels(models_pb2.ListModelsRequest())  # type: ignore[attr-defined]  # generated
    return {model.name: model for model in response.models}


async def test_routes_are_listed_with_what_they_can_do() -> None:
    async with serving(ROUTES) as served:
        found = await models(served.stub)
    assert {name: list(model.operations) for name, model in found.items()} == {
        "zebra": [Model.OPERATION_CHAT, Model.OPERATION_EMBED],
        "apology": [Model.OPERATION_CHAT],
        "vectors": [Model.OPERATION_EMBED],
    }
    assert list(found["zebra"].targets) == ["both", "chats"]
    assert all(model.available for model in found.values())


async def test_a_route_whose_targets_all_rest_is_not_available() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(refusal(429, retry_after="30"))
        b.always(json_reply(answer()))
        async with serving(two_targets(a, b)) as served:
            await served.stub.Chat(chat())
            found = await models(served.stub)
    assert {name: model.available for name, model in found.items()} == {"chat": True, "only-a": False}


async def test_a_model_is_named_directly_only_where_that_is_allowed() -> None:
    async with Upstream() as a, Upstream() as b:
        text = two_targets(a, b)
        async with serving(text) as served:
            failure = await fails(served.stub.Chat(chat("a/model-z")))
            assert (failure.code, failure.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
        assert not a.requests
        a.always(json_reply(answer(model="model-z")))
        async with serving("server: {allow_direct: true}\n" + text) as served:
            response = await served.stub.Chat(chat("a/model-z"))
            assert response.model == "a/model-z"
            assert (response.route.route, response.route.target) == ("direct", "a/model-z")
            assert a.requests[0].json["model"] == "model-z"
            a.always(sse_reply(pieces("Hel", "lo")))
            assert text_of(await events_of(served.stub.StreamChat(chat("a/org/model-z")))) == "Hello"
            assert a.requests[1].json["model"] == "org/model-z", "the model's own name may have slashes"
            for unknown in ("nobody/model-z", "a/", "/model-z", "model-z"):
                failure = await fails(served.stub.Chat(chat(unknown)))
                assert failure.reason == "MODEL_NOT_FOUND", unknown
            assert "a/model-z" not in await models(served.stub), "only routes are listed"
        assert len(a.requests) == 2


async def test_a_failing_direct_model_has_a_breaker_and_limits_of_its_own() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(refusal(503))
        async with serving("server: {allow_direct: true}\n" + two_targets(a, b)) as served:
            for _ in range(5):
                assert (await fails(served.stub.Chat(chat("a/bad")))).reason == "ALL_TARGETS_FAILED"
            a.always(json_reply(answer()))
            assert (await served.stub.Chat(chat("a/good"))).route.target == "a/good"
            assert (await served.stub.Chat(chat("only-a"))).route.target == "a1"
            assert served.server.assembly.direct["a/bad"].endpoints[0].breaker.state.value == "open"
            assert served.idle
