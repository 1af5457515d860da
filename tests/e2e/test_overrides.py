"""What the configuration adds to the requests of one target, and a route's other names, over real sockets."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

from google.rpc import error_details_pb2

from modelrouter.v1 import models_pb2
from tests.e2e.serving import answer, chat, fails, pieces, serving
from tests.upstream import Upstream, json_reply, sse_reply


def configuration(upstream: Upstream, strategy: str) -> str:
    return dedent(f"""
        providers:
          up: {{kind: openai, api_key: k, base_url: "{upstream.base_url}", retries: 0, health_check: null}}
        targets:
          plain: {{provider: up, model: plain}}
          set:
            provider: up
            model: set
            max_output_tokens: 50
            temperature: 0.5
            provider_options: {{service_tier: flex, top_p: 0.25, nested: {{deep: [1, null]}}}}
        routes:
          chat: {{targets: [set, plain], strategy: {strategy}, aliases: [other/name, default]}}
    """)


def bodies(upstream: Upstream) -> list[dict[str, Any]]:
    return [request.json for request in upstream.requests]


async def test_a_targets_settings_are_its_own_under_every_strategy() -> None:
    for strategy in ("ordered", "round_robin"):
        async with Upstream() as upstream:
            upstream.then(json_reply({"error": {"message": "down"}}, 503)).always(json_reply(answer()))
            async with serving(configuration(upstream, strategy)) as served:
                await served.stub.Chat(chat(), timeout=10)
            first, second = bodies(upstream)
            assert (first["model"], first["max_tokens"], first["temperature"]) == ("set", 50, 0.5)
            assert (first["service_tier"], first["top_p"]) == ("flex", 0.25)
            assert first["nested"] == {"deep": [1, None]}
            assert (second["model"], set(second)) == ("plain", {"model", "messages"})


async def test_callers_set_what_they_may_and_are_capped() -> None:
    async with Upstream() as upstream:
        upstream.always(json_reply(answer()))
        async with serving(configuration(upstream, "ordered")) as served:
            fields: dict[str, Any] = {
                "generation": {"max_output_tokens": 90, "temperature": 1.5},
                "provider_options_json": {"up": '{"service_tier": "priority"}', "openai": '{"store": false}'},
            }
            await served.stub.Chat(chat(**fields), timeout=10)
            await served.stub.Chat(chat(generation={"max_output_tokens": 9}), timeout=10)
        first, second = bodies(upstream)
        assert (first["max_tokens"], first["temperature"]) == (50, 1.5)
        assert (first["service_tier"], first["store"], first["top_p"]) == ("priority", False, 0.25)
        assert second["max_tokens"] == 9


async def test_names_that_a_caller_gets_wrong_are_refused_with_those_that_are_right() -> None:
    async with Upstream() as upstream:
        upstream.always(json_reply(answer()))
        async with serving(configuration(upstream, "round_robin")) as served:
            wrong: dict[str, tuple[dict[str, Any], str]] = {
                "routing.allowed_targets[1]": (
                    {"routing": {"allowed_targets": ["set", "plane"]}},
                    "not a target of this route; its targets are: set, plain",
                ),
                "provider_options_json[opneai]": (
                    {"provider_options_json": {"opneai": "{}", "up": "{}", "gemini": "{}"}},
                    "nothing is called that here; the providers of this route are: up",
                ),
            }
            for field, (fields, words) in wrong.items():
                for call in (served.stub.Chat(chat(**fields)), served.stub.StreamChat(chat(**fields))):
                    failure = await fails(call)
                    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
                    (violation,) = failure.detail(error_details_pb2.BadRequest).field_violations
                    assert (violation.field, violation.description) == (field, words)
            assert upstream.requests == []
            others = {"openai": '{"store": false}', "gemini": '{"x": 1}'}
            await served.stub.Chat(chat(provider_options_json=others), timeout=10)
        assert upstream.requests[0].json["store"] is False
        assert "x" not in upstream.requests[0].json


async def test_an_alias_is_the_route() -> None:
    async with Upstream() as upstream:
        upstream.always(json_reply(answer()))
        async with serving(configuration(upstream, "ordered")) as served:
            for name in ("chat", "other/name", "default"):
                response = await served.stub.Chat(chat(name), timeout=10)
                assert response.route.route == "chat"
            upstream.always(sse_reply(pieces("Hi")))
            messages = [message async for message in served.stub.StreamChat(chat("default"), timeout=10)]
            assert messages[-1].finished.route.route == "chat"
            listed = await served.stub.ListModels(models_pb2.ListModelsRequest(), timeout=10)
            assert [model.name for model in listed.models] == ["chat"]
